"""Files that are read together, and every fault that they can have."""

from pathlib import Path

import pytest

from tests.data.test_sources import fault, files_source
from xlmrxl_train.config import FileSet

PAIR = {"xx": "{language}.txt", "en": "en.txt"}
BUCC = {"source": "de-en.{language}", "target": "de-en.en", "gold": "de-en.gold"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "de.txt").write_text("eins\nzwei\n\n", encoding="utf-8")
    (tmp_path / "en.txt").write_text("one\ntwo\n\n", encoding="utf-8")
    (tmp_path / "de-en.de").write_text("de-1\tGuten Tag\nde-2\tNie\tübersetzt\n", encoding="utf-8")
    (tmp_path / "de-en.en").write_text("en-7\tNever\nen-9\tHello\n", encoding="utf-8")
    (tmp_path / "de-en.gold").write_text("de-1\ten-9\n", encoding="utf-8")
    return tmp_path


def source(root: Path, **settings):
    dataset = {"columns": {"text": "xx", "text_pair": "en"}}
    return files_source(root, dataset, train=[FileSet(**({"parallel": PAIR} | settings))])


def bucc(root: Path):
    dataset = {"columns": {"text": "text", "side": "side", "gold": "gold"}, "id_column": "id"}
    return files_source(root, dataset, train=[FileSet(parallel=BUCC, format="bucc")])


def test_line_n_of_each_file_is_one_row(root: Path) -> None:
    rows = list(source(root).rows("train", "de"))
    assert [row.values for row in rows] == [
        {"text": "eins", "text_pair": "one"},
        {"text": "zwei", "text_pair": "two"},
        {"text": "", "text_pair": ""},
    ]
    assert rows[1].where == f"{root}/de.txt:2" and rows[1].language == "de"


def test_the_fingerprint_follows_both_files_and_their_roles(root: Path) -> None:
    before = source(root).fingerprint("train", "de")
    swapped = source(root, parallel={"en": "{language}.txt", "xx": "en.txt"})
    assert swapped.fingerprint("train", "de") != before
    (root / "en.txt").write_text("one\nTWO\n\n", encoding="utf-8")
    assert source(root).fingerprint("train", "de") != before


def test_files_of_different_length(root: Path) -> None:
    (root / "en.txt").write_text("one\n", encoding="utf-8")
    assert fault(source(root), language="de") == (
        f"{root}/en.txt:2: expected a line beside the one in {root}/de.txt, found the end of the file. "
        "Give files whose lines are translations of one another."
    )


def test_a_missing_file_an_empty_pattern_and_empty_files(root: Path) -> None:
    assert fault(source(root), language="fr").startswith(f"{root}/fr.txt: expected a file, found none in {root}.")
    assert fault(source(root, parallel={"xx": "", "en": "en.txt"}), language="de") == (
        "dataset.files.train.0.parallel.xx must name a file below data.root, got nothing. Set it."
    )
    (root / "de.txt").write_text("")
    (root / "en.txt").write_text("")
    assert fault(source(root), language="de").startswith(f"{root}/de.txt: expected at least one record, found none.")


def test_formats_that_read_one_file(root: Path) -> None:
    assert fault(source(root, format="conllu"), language="de") == (
        "dataset.files.train.0.parallel must be text files, one per column, or tables (tsv, csv, jsonl, parquet), or "
        "with format=bucc source, target and gold; got format=conllu and xx, en. Mend dataset.files.train.0."
    )


def test_row_n_of_each_table_is_one_row(root: Path) -> None:
    (root / "de.tsv").write_text("s1\ts2\neins\tzwei\ndrei\tvier\n", encoding="utf-8")
    (root / "en.tsv").write_text("s1\ts2\none\ttwo\nthree\tfour\n", encoding="utf-8")
    settings = {"parallel": {"xx": "{language}.tsv", "en": "en.tsv"}, "format": "tsv"}
    columns = {"text": "xx.s2", "text_pair": "en.s2"}
    rows = list(source(root, columns=columns, **settings).rows("train", "de"))
    assert [(row.values["text"], row.values["text_pair"]) for row in rows] == [("zwei", "two"), ("vier", "four")]
    assert rows[1].where == f"{root}/de.tsv:3"
    (root / "en.tsv").write_text("s1\ts2\none\ttwo\n", encoding="utf-8")
    assert fault(source(root, columns=columns, **settings), language="de") == (
        f"{root}/en.tsv row 1: expected a row beside the one in {root}/de.tsv, found the end of the file. "
        "Give files whose rows are translations of one another."
    )


def test_sentences_of_both_sides_know_their_translation(root: Path) -> None:
    rows = list(bucc(root).rows("train", "de"))
    assert [(row.id, row.values["side"], row.values["gold"]) for row in rows] == [
        ("source/de-1", "source", "en-9"),
        ("source/de-2", "source", ""),
        ("target/en-7", "target", ""),
        ("target/en-9", "target", "de-1"),
    ]
    assert rows[1].values["text"] == "Nie\tübersetzt"


def test_a_line_without_an_id_and_gold_of_other_files(root: Path) -> None:
    (root / "de-en.gold").write_text("de-1\ten-9\nde-5\ten-7\n", encoding="utf-8")
    assert fault(bucc(root), language="de") == (
        f"{root}/de-en.gold:2: expected the id of a sentence of {root}/de-en.de, found 'de-5'. "
        "Give the gold pairs that belong to these files."
    )
    (root / "de-en.gold").write_text("de-1 en-9\n", encoding="utf-8")
    assert fault(bucc(root), language="de") == (
        f"{root}/de-en.gold:1: expected source id<TAB>target id, found 'de-1 en-9'. Mend the line."
    )
