"""Which languages a run looks at, by what its source has."""

import gzip
import json
from pathlib import Path

import pytest

from xlmrxl_train import load_config, train
from xlmrxl_train.session import SAMPLE_TOKENIZER, Session

WORDS = ["model=tiny", f"tokenizer.path={SAMPLE_TOKENIZER}"]


def test_languages_without_a_test_split_are_not_scored(tmp_path: Path) -> None:
    session = Session.open(load_config(["recipe=udpos", *WORDS, f"data.root={tmp_path}"]))
    assert session.evaluate_languages == ["en", "ar", "de", "es", "fr", "hi", "ru", "th", "tr", "zh"]
    assert session.left_out_languages == [
        code for code in session.config.dataset.languages if code not in session.evaluate_languages
    ]
    assert len(session.left_out_languages) == 23
    assert session.validation_languages() == ["en"]


def test_languages_that_are_asked_for_are_kept(tmp_path: Path) -> None:
    words = ["recipe=udpos", *WORDS, f"data.root={tmp_path}", "evaluate.languages=[en,fi]"]
    session = Session.open(load_config(words))
    assert session.evaluate_languages == ["en", "fi"] and session.left_out_languages == []


def test_a_data_set_without_a_test_split_keeps_its_languages() -> None:
    session = Session.open(load_config(["recipe=demo_pretrain"]))
    assert session.evaluate_languages == session.config.dataset.languages and session.left_out_languages == []


def test_a_run_says_what_it_leaves_out_and_shows_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Treebanks of two invented sentences each, under the names of the real ones."""
    words = ["1\tDie\t_\tDET", "2\tFähre\t_\tNOUN", "3\tam\t_\tADP", "3-4\tam\t_\t_", "4\tdem\t_\tDET", "4.1\te\t_\tX"]
    sentence = "".join(f"{word}{'	_' * 6}\n" for word in (*words[:2], words[3], words[2], *words[4:]))
    names = [f"en_ewt-ud-{split}" for split in ("train", "dev", "test")]
    names += [f"{code}_pud-ud-test" for code in ("ar", "de", "es", "fr", "hi", "ru", "th", "tr", "zh")]
    (tmp_path / "pos/ud").mkdir(parents=True)
    for name in names:
        with gzip.open(tmp_path / "pos/ud" / f"{name}.conllu.gz", "wt", encoding="utf-8") as stream:
            stream.write(f"{sentence}\n{sentence}")
    folder = tmp_path / "run"
    more = ["train.max_steps=1", "evaluate.every=0", "evaluate.bootstrap=0", "train.precision=fp32"]
    report = train(load_config(["recipe=udpos", *WORDS, *more, f"data.root={tmp_path}", f"run.dir={folder}"]))
    said = capsys.readouterr().err
    assert (
        "without a test split here, so not scored: af, bg, el, et, eu, fa, fi, he, hu, id, it, ja, kk, ko, mr" in said
    )
    assert "stand-in: the 1,000 sentences of PUD instead of XTREME's test set" in said
    assert list(report.languages) == ["en", "ar", "de", "es", "fr", "hi", "ru", "th", "tr", "zh"]
    assert set(report.languages["th"].values) == {"pos_f1", "tag_accuracy"} and report.languages["th"].n == 2
    lines = (folder / "predictions" / "th.jsonl").read_text(encoding="utf-8").splitlines()
    line = json.loads(lines[0])
    assert line["tokens"] == ["Die", "Fähre", "am", "dem"] and line["reference"] == ["DET", "NOUN", "ADP", "DET"]
    assert len(line["prediction"]) == 4 and set(line["statistics"]) == {"pos_f1", "tag_accuracy"}
