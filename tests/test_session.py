"""Which languages a run looks at, by what its source has."""

from pathlib import Path

from xlmrxl_train import load_config
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
