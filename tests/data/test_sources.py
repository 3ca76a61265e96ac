"""Rows of files and of the sample: roles, ids, parts, languages, fingerprints, and every fault."""

import os
from pathlib import Path
from typing import Any

import pytest

from xlmrxl_train.config import DataConfig, DatasetConfig, FilesConfig, FileSet, HubConfig
from xlmrxl_train.data.sources import Source, open_source
from xlmrxl_train.errors import ConfigError, DataError, UserError

NAMES = {"header": False, "column_names": ["a", "b", "label"]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for language in ("en", "de"):
        (tmp_path / language).mkdir()
        (tmp_path / language / "dev.tsv").write_text("".join(f"{language} {i}\tb{i}\t{i % 2}\n" for i in range(5)))
    return tmp_path


def files_source(root: Path, dataset: dict[str, Any] | None = None, **splits: list[FileSet]) -> Source:
    settings: dict[str, Any] = {
        "name": "Mine",
        "languages": ["en", "de", "fr"],
        "columns": {"text": "a", "text_pair": "b", "label": "label"},
    }
    settings |= dataset or {}
    return open_source(
        DatasetConfig(**settings, files=FilesConfig(**splits)), DataConfig(source="files", root=str(root))
    )


def dev(**settings: Any) -> FileSet:
    return FileSet(path="{language}/dev.tsv", **(NAMES | settings))


def fault(source: Source, split: str = "train", language: str = "en") -> str:
    with pytest.raises(UserError) as caught:
        list(source.rows(split, language))
    return str(caught.value)


def test_rows_have_roles_numbers_and_places(root: Path) -> None:
    source = files_source(root, train=[dev()])
    rows = list(source.rows("train", "de"))
    assert [row.id for row in rows] == ["0", "1", "2", "3", "4"]
    assert rows[3].values == {"text": "de 3", "text_pair": "b3", "label": "1"}
    assert rows[3].where == f"{root}/de/dev.tsv:4"
    assert source.kind == "files" and source.has("train", "de")
    assert not source.has("test", "de") and not source.has("train", "sw")


def test_halves_keep_the_numbers_of_the_whole(root: Path) -> None:
    source = files_source(root, train=[dev(part=[0.0, 0.5])], validation=[dev(part=[0.5, 1.0])])
    first, second = ([row.id for row in source.rows(split, "en")] for split in ("train", "validation"))
    assert (first, second) == (["0", "1"], ["2", "3", "4"])


def test_ids_stay_unique_over_file_sets(root: Path) -> None:
    more = FileSet(path="en/dev.tsv", **NAMES, languages=["en"], columns={"text": "b"}, stand_in="not the real thing")
    source = files_source(root, train=[dev(part=[0.0, 0.5]), more, dev(part=[0.5, 1.0])])
    english = list(source.rows("train", "en"))
    assert [row.id for row in english] == ["0", "1", "5", "6", "7", "8", "9", "12", "13", "14"]
    assert english[2].values["text"] == "b0"
    assert len(list(source.rows("train", "de"))) == 5
    assert source.stand_ins("train", "en") == ["not the real thing"] and source.stand_ins("train", "de") == []


def test_a_star_takes_files_in_order_and_brackets_are_letters(tmp_path: Path) -> None:
    for name in ("x2.txt", "x1.txt", "y.txt", "[z].txt"):
        (tmp_path / name).write_text(name)
    columns = {"columns": {"text": "text"}}
    source = files_source(tmp_path, columns, train=[FileSet(path="x*.txt")], test=[FileSet(path="[z]*.txt")])
    assert [row.values["text"] for row in source.rows("train", "en")] == ["x1.txt", "x2.txt"]
    assert [row.values["text"] for row in source.rows("test", "en")] == ["[z].txt"]


def test_one_file_with_a_language_column_and_columns_by_language(tmp_path: Path) -> None:
    (tmp_path / "all.csv").write_text("id,lang,s_en,s_de\n7,en,x,y\n8,de,v,w\n9,en,t,u\n")
    dataset = {"columns": {"text": "s_{language}"}, "language_column": "lang"}
    source = files_source(tmp_path, dataset, train=[FileSet(path="all.csv")])
    assert [(row.id, row.values) for row in source.rows("train", "en")] == [("0", {"text": "x"}), ("1", {"text": "t"})]
    assert [(row.id, row.values) for row in source.rows("train", "de")] == [("0", {"text": "w"})]
    named = files_source(tmp_path, dataset | {"id_column": "id"}, train=[FileSet(path="all.csv", part=[0.5, 1.0])])
    assert [row.id for row in named.rows("train", "en")] == ["9"]
    assert fault(source, language="fr") == (
        f"{tmp_path}/all.csv: expected rows of fr in column 'lang', found only en, de. "
        "Check dataset.languages and dataset.language_column."
    )
    wrong = files_source(tmp_path, dataset | {"language_column": "language"}, train=[FileSet(path="all.csv")])
    assert fault(wrong).startswith(f"{tmp_path}/all.csv:2: expected a column 'language', found 'id', 'lang', 's_en'")


def test_no_roles_give_all_columns(root: Path) -> None:
    source = files_source(root, {"columns": {}}, train=[dev()])
    assert next(iter(source.rows("train", "en"))).values == {"a": "en 0", "b": "b0", "label": "0"}


def test_sentences_with_tags(tmp_path: Path) -> None:
    (tmp_path / "en.conllu").write_text("# sent_id = n7\n1\ta\tl\tDET\tX\t_\t0\troot\t_\t_\n")
    dataset = {"columns": {"tokens": "tokens", "tags": "tags"}, "id_column": "sent_id"}
    source = files_source(tmp_path, dataset, test=[FileSet(path="{language}.conllu")])
    (row,) = source.rows("test", "en")
    assert (row.id, row.values) == ("n7", {"tokens": ["a"], "tags": ["DET"]})


# Fingerprints ----------------------------------------------------------------------------------------------------


def test_a_fingerprint_follows_content_and_reading(root: Path) -> None:
    def fingerprint(dataset: dict[str, Any] | None = None, language: str = "en", **settings: Any) -> str:
        return files_source(root, dataset, train=[dev(**settings)]).fingerprint("train", language)

    plain = fingerprint()
    assert plain == fingerprint() == fingerprint(stand_in="a note") == fingerprint(languages=["en"])
    others = [
        fingerprint(language="de"),
        fingerprint(part=[0.0, 0.5]),
        fingerprint(columns={"text": "b"}),
        fingerprint({"id_column": "b"}),
        fingerprint({"columns": {"text": "a"}}),
        fingerprint(quoting=True),
        fingerprint(column_names=["b", "a", "label"]),
    ]
    assert len({plain, *others}) == 8
    file = root / "en" / "dev.tsv"
    status = file.stat()
    file.write_text(file.read_text().replace("en 0", "en x"))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert fingerprint() != plain


# Faults ----------------------------------------------------------------------------------------------------------


def test_missing_files_are_named_with_what_comes_near(root: Path) -> None:
    source = files_source(root, train=[dev()], test=[FileSet(path="{language}/dve.tsv", **NAMES)])
    source.check("train", ["en", "de"])
    with pytest.raises(DataError) as caught:
        source.check("train", ["en", "fr"])
    assert str(caught.value) == (
        f"{root}/fr/dev.tsv: expected a file, found none in {root}. Check data.root and dataset.files.train.0.path."
    )
    message = (
        f"{root}/en/dve.tsv: expected a file, found none in {root}/en. "
        "Near: dev.tsv. Check data.root and dataset.files.test.0.path."
    )
    assert fault(source, "test") == message
    with pytest.raises(DataError) as caught:
        source.fingerprint("test", "en")
    assert str(caught.value) == message


def test_a_missing_root_and_a_missing_split(root: Path) -> None:
    assert fault(files_source(root / "no", train=[dev()])) == (
        f"{root}/no: expected the folder of the data set's files, found none. Check data.root."
    )
    source = files_source(root, train=[dev(languages=["de"])])
    message = (
        f"{root}: expected a train split of Mine in en, found none in dataset.files.train. "
        "Choose other languages, or add its files there."
    )
    assert fault(source) == message
    with pytest.raises(DataError) as caught:
        source.check("train", ["en"])
    assert str(caught.value) == message
    assert fault(files_source(root, train=[FileSet()])) == (
        "dataset.files.train.0.path must name a file below data.root, got nothing. Set it."
    )


def test_missing_columns_and_bad_ids(root: Path) -> None:
    place = f"{root}/en/dev.tsv"
    remedy = "Set dataset.columns, or the columns, column_names, header and separator of its files."
    missing = f"{place}:1: expected a column 'id', found 'a', 'b', 'label'. {remedy}"
    assert fault(files_source(root, train=[dev(columns={"text": "id"})])) == missing
    assert fault(files_source(root, {"id_column": "id"}, train=[dev()])) == missing
    assert fault(files_source(root, {"id_column": "label"}, train=[dev()])) == (
        f"{place}:3: expected an id of its own in column 'label', found '0', which {place}:1 has. "
        "Set dataset.id_column to null to number the rows."
    )
    (root / "en" / "dev.tsv").write_text("x\t\t1\n")
    assert fault(files_source(root, {"id_column": "b"}, train=[dev()])) == (
        f"{place}:1: expected an id in column 'b', found ''. Set dataset.id_column."
    )


@pytest.mark.parametrize("part", [[0.5], [0.5, 0.5], [0.5, 1.5], [0.7, 0.2]])
def test_a_wrong_part(root: Path, part: list[float]) -> None:
    assert fault(files_source(root, train=[dev(part=part)])) == (
        f"dataset.files.train.0.part must be two shares, as [0.0, 0.5] for the first half, got {part}. Mend it."
    )


# Which source ----------------------------------------------------------------------------------------------------


def test_auto_takes_files_then_hub_then_sample(root: Path) -> None:
    everything: dict[str, Any] = {"files": FilesConfig(), "hub": HubConfig(repository="a/b"), "sample": FilesConfig()}

    def kind(root: str | None, *offered: str) -> str:
        dataset = DatasetConfig(name="Mine", **{name: everything[name] for name in offered})
        return open_source(dataset, DataConfig(root=root)).kind

    assert kind(str(root), "files", "hub", "sample") == "files"
    assert kind(None, "files", "hub", "sample") == "hub"
    assert kind(str(root), "hub", "sample") == "hub"
    assert kind(None, "files", "sample") == "sample"
    with pytest.raises(ConfigError) as caught:
        kind(None, "files")
    assert str(caught.value) == (
        "data.source=auto needs dataset.files with data.root, dataset.hub or dataset.sample, "
        "got none of them for Mine. Set data.root, or describe a source in the data set's YAML."
    )


@pytest.mark.parametrize("source", ["hub", "files", "sample"])
def test_a_source_that_the_data_set_lacks(source: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_source(DatasetConfig(name="Mine"), DataConfig(source=source, root="."))
    assert str(caught.value) == (
        f"data.source={source} needs dataset.{source}, which Mine lacks. Choose another source, or describe it."
    )


def test_files_need_a_root() -> None:
    with pytest.raises(ConfigError) as caught:
        open_source(DatasetConfig(name="Mine", files=FilesConfig()), DataConfig(source="files"))
    assert str(caught.value) == "data.source=files needs data.root, got null. Set it to the folder of the files."


def test_the_sample_lies_inside_the_package() -> None:
    dataset = DatasetConfig(name="s", languages=["en"], sample=FilesConfig(train=[FileSet(path="nli/train-none.tsv")]))
    message = fault(open_source(dataset, DataConfig(source="sample")))
    assert "xlmrxl_train/data/sample/nli/train-none.tsv: expected a file" in message
    assert message.endswith("Check data.root and dataset.sample.train.0.path.")


# Real data -------------------------------------------------------------------------------------------------------

REAL = {
    "xnli": ("nli/xnli/test/test-{language}.tsv.gz", NAMES, "en ur zh", 5010),
    "pawsx": ("paraphrase/pawsx/dev/dev-{language}.tsv.gz", NAMES, "ja", 1980),
    "cad": ("nli/cad_nli/train.tsv", {}, "en", 8330),
    "xcopa": ("commonsense/xcopa/{language}/test.{language}.jsonl", {}, "qu", 500),
    "xquad": ("qa/xquad/xquad.{language}.json.gz", {}, "ar", 1190),
    "panx": ("ner/panx/dev/dev-{language}.tsv.gz", {"format": "conll"}, "my", 100),
    "panx test": (
        "ner/panx/test/test-{language}.conllu.gz",
        {"format": "conll", "column_names": ["index", "tokens", "tags"]},
        "en",
        10000,
    ),
    "pud": ("pos/ud/{language}_pud-ud-test.conllu.gz", {}, "ar", 1000),
    "sib200": ("topic/sib200/{language}/test.tsv", {}, "nqo_Nkoo", 204),
    "tatoeba": ("retrieval/tatoeba/tatoeba.{language}-eng.{language}", {"format": "text"}, "afr", 1000),
}


@pytest.mark.parametrize("name", REAL)
def test_real_data(shared_data: Path, name: str) -> None:
    path, settings, languages, count = REAL[name]
    dataset = {"columns": {}, "languages": languages.split()}
    source = files_source(shared_data, dataset, test=[FileSet(path=path, **settings)])
    source.check("test", languages.split())
    for language in languages.split():
        rows = list(source.rows("test", language))
        assert len(rows) == count and len({row.id for row in rows}) == count
        assert all(row.values for row in rows)
