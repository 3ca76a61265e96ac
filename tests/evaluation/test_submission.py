"""Predictions as XTREME's evaluate.py reads them: from a run where the kind is trained here, else from lines by hand.

The readers below follow that script's (google-research/xtreme, evaluate.py @ 091824888a60).
"""

import json
from pathlib import Path

import pytest

from xlmrxl_train import load_config, train
from xlmrxl_train.cli import main
from xlmrxl_train.config import DatasetConfig
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.evaluation.submission import write_submission, xtreme_task
from xlmrxl_train.run import evaluate
from xlmrxl_train.session import SAMPLE_TOKENIZER

SUBMITTED = ["dataset.name=XNLI", "evaluate.submission=xtreme", "evaluate.languages=[en,th]"]
RUN = ["recipe=demo", "train.max_steps=1", "evaluate.every=0", "evaluate.bootstrap=0", "data.limit=9"]


def read_label(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]


def read_tag(path: Path) -> list[list[str]]:
    sentences: list[list[str]] = []
    sentence: list[str] = []
    for line in read_label(path):
        if line:
            sentence.append(line)
        else:
            sentences.append(sentence)
            sentence = []
    return [*sentences, sentence] if sentence else sentences


def written(folder: Path, name: str, lines: dict[str, list[dict[str, object]]], **dataset: object) -> Path:
    """Write lines of predictions by hand; return the folder of the task."""
    (folder / "predictions").mkdir()
    for language, values in lines.items():
        text = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
        (folder / "predictions" / f"{language}.jsonl").write_text(text, encoding="utf-8")
    settings = DatasetConfig(name=name, **dataset)  # type: ignore[arg-type]
    write_submission(folder / "predictions", folder / "submission", settings, list(lines))
    (task,) = (folder / "submission").iterdir()
    assert not list(task.glob(".*"))
    return task


def test_a_run_writes_a_label_per_line(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(load_config([*RUN, *SUBMITTED, f"run.dir={run}"]))
    for code in ("en", "th"):
        lines = (run / "predictions" / f"{code}.jsonl").read_text(encoding="utf-8").splitlines()
        labels = read_label(run / "submission" / "xnli" / f"test-{code}.tsv")
        assert labels == [json.loads(line)["prediction"] for line in lines] and len(labels) == 9
    assert sorted(path.name for path in (run / "submission").rglob("*.tsv")) == ["test-en.tsv", "test-th.tsv"]
    config = load_config([*RUN, *SUBMITTED, f"run.dir={run}", "evaluate.languages=[en]"])
    evaluate(run, config)
    assert read_label(run / "evaluation" / "xnli" / "submission" / "xnli" / "test-en.tsv") == read_label(
        run / "submission" / "xnli" / "test-en.tsv"
    )


def test_it_is_written_on_request_only(tmp_path: Path) -> None:
    train(load_config([*RUN, "dataset.name=XNLI", "evaluate.languages=[en]", f"run.dir={tmp_path / 'run'}"]))
    assert not (tmp_path / "run" / "submission").exists()


def test_another_data_set_is_refused_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN, "evaluate.submission=xtreme", f"run.dir={tmp_path / 'run'}"]) == 2
    assert capsys.readouterr().err == (
        "error: evaluate.submission=xtreme is for XTREME's data sets (BUCC 2018, MLQA, PAN-X, PAWS-X, Tatoeba, "
        "TyDiQA-GoldP, UDPOS, XNLI, XQuAD), got sample NLI. Set evaluate.submission=null.\n"
    )
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match=r"got SIB-200\. Set evaluate\.submission=null\."):
        xtreme_task(DatasetConfig(name="SIB-200"))


def test_labels_are_those_of_the_files(tmp_path: Path) -> None:
    dataset = load_config(["recipe=paws_x"]).dataset
    values = {"label_values": dataset.label_values, "labels": dataset.labels}
    lines = [{"id": "0", "prediction": "paraphrase"}, {"id": "1", "prediction": "different"}]
    folder = written(tmp_path, dataset.name, {"ko": lines}, **values)
    assert (folder / "test-ko.tsv").read_text() == "1\n0\n" and folder.name == "pawsx"


def test_of_several_ways_to_write_a_label_the_first_is_taken(tmp_path: Path) -> None:
    values = {"label_values": {"yes": "a", "ja": "a"}, "labels": ["a"]}
    folder = written(tmp_path, "XNLI", {"de": [{"id": "0", "prediction": "a"}]}, **values)
    assert (folder / "test-de.tsv").read_text() == "yes\n"


@pytest.mark.parametrize(("name", "task"), [("PAN-X", "panx"), ("UDPOS", "udpos")])
def test_tags_stand_in_sentences(name: str, task: str, tmp_path: Path) -> None:
    sentences = [["B-PER", "I-PER", "O"], ["O"], ["B-LOC"]]
    lines = [{"id": str(number), "prediction": tags} for number, tags in enumerate(sentences)]
    folder = written(tmp_path, name, {"he": lines})
    assert (folder / "test-he.tsv").read_text() == "B-PER\nI-PER\nO\n\nO\n\nB-LOC\n"
    assert read_tag(folder / "test-he.tsv") == sentences and folder.name == task


@pytest.mark.parametrize(("name", "task"), [("XQuAD", "xquad"), ("MLQA", "mlqa"), ("TyDiQA-GoldP", "tydiqa")])
def test_answers_are_found_by_id(name: str, task: str, tmp_path: Path) -> None:
    lines = [{"id": "a-1", "prediction": '北京 "1990"\nund'}, {"id": "a-2", "prediction": ""}]
    folder = written(tmp_path, name, {"zh": lines, "de": lines[:1]})
    assert json.loads((folder / "test-zh.json").read_text(encoding="utf-8")) == {"a-1": '北京 "1990"\nund', "a-2": ""}
    assert list(json.loads((folder / "test-de.json").read_text(encoding="utf-8"))) == ["a-1"] and folder.name == task


def test_translations_are_rows_and_languages_have_two_letters(tmp_path: Path) -> None:
    lines = [{"id": str(row), "prediction": [found, 0]} for row, found in enumerate([2, 0, 1])]
    folder = written(tmp_path, "Tatoeba", {"pes": lines, "cmn": lines[:1], "swh": lines, "ast": lines})
    assert sorted(path.name for path in folder.iterdir()) == [
        "test-ast.tsv",
        "test-fa.tsv",
        "test-sw.tsv",
        "test-zh.tsv",
    ]
    assert read_label(folder / "test-fa.tsv") == ["2", "0", "1"]


def test_a_run_without_training_writes_rows(tmp_path: Path) -> None:
    (tmp_path / "retrieval/tatoeba").mkdir(parents=True)
    foreign, english = ["گربه خوابید.", "باران آمد.", "خورشید تابید."], ["A cat slept.", "It rained.", "The sun shone."]
    for code, texts in (("pes", foreign), ("eng", english)):
        (tmp_path / f"retrieval/tatoeba/tatoeba.pes-eng.{code}").write_text("\n".join(texts) + "\n", encoding="utf-8")
    words = [
        "recipe=tatoeba", "model=tiny", "task.layer=1", "data.source=files", f"data.root={tmp_path}",
        "evaluate.languages=[pes]",
        f"tokenizer.path={SAMPLE_TOKENIZER}", "evaluate.submission=xtreme", f"run.dir={tmp_path / 'run'}",
    ]  # fmt: skip
    train(load_config(words))
    lines = (tmp_path / "run/predictions/pes.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [str(json.loads(line)["prediction"][0]) for line in lines]
    assert read_label(tmp_path / "run/submission/tatoeba/test-fa.tsv") == rows and set(rows) <= {"0", "1", "2"}


def test_mined_pairs_are_two_ids(tmp_path: Path) -> None:
    mined = [("source/de-1", ["en-7"]), ("source/de-2", []), ("source/de-3", ["en-1"]), ("target/en-1", [])]
    lines = [{"id": id_, "prediction": partners} for id_, partners in mined]
    folder = written(tmp_path, "BUCC 2018", {"de": lines})
    pairs = {tuple(line.split("\t")) for line in read_label(folder / "test-de.tsv")}
    assert pairs == {("de-1", "en-7"), ("de-3", "en-1")} and folder.name == "bucc2018"
