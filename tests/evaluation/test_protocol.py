"""What a run may be called, by what it was trained on, selected by, and began from."""

from dataclasses import asdict
from typing import Any

import pytest

from xlmrxl_train.evaluation.protocol import Protocol, of_parent, same_language

FOUR = ["en", "de", "fr", "sw"]


def protocol(**changes: Any) -> Protocol:
    values = {
        "recipe": "xnli",
        "model": "mini",
        "kind": "sequence_classification",
        "dataset": "XNLI",
        "split": "test",
        "source": "files",
        "train_languages": ["en"],
        "training": {"XNLI": ["en"]},
        "select_split": "validation",
        "select_languages": ["en"],
        "select_metric": "accuracy",
        "stand_ins": [],
        "limit": None,
        "seed": 1,
        "steps": 10,
        "tokens": 1000,
        "selected_step": 10,
    }
    return Protocol(**(values | changes))


def shots(**splits: str) -> dict[str, dict[str, Any]]:
    return {code: {"split": split, "ids": ["3", "7"]} for code, split in splits.items()}


def parent(run: str = "runs/other/seed-1", **changes: Any) -> dict[str, Any]:
    own = asdict(protocol(**({"recipe": "other", "dataset": "Other"} | changes)))
    del own["parents"]
    return own | {"run": run}


MASKED = {"kind": "masked_language_modelling", "labelled": False}


@pytest.mark.parametrize(
    ("changes", "languages", "setting"),
    [
        ({}, FOUR, "zero-shot from en"),
        ({}, ["eng_Latn", "deu_Latn"], "zero-shot from en"),
        ({"tuning": "the head alone"}, FOUR, "zero-shot from en; the head alone"),
        ({"train_languages": ["eng_Latn"], "select_languages": ["eng"]}, FOUR, "zero-shot from eng_Latn"),
        ({"select_languages": ["en", "deu_Latn"]}, FOUR, "cross-lingual, selected with labels of de"),
        ({"select_languages": ["en", "de"], "select_split": None}, FOUR, "zero-shot from en"),
        ({"train_languages": FOUR}, FOUR, "supervised: every evaluated language was trained on"),
        ({}, ["en"], "supervised: every evaluated language was trained on"),
        (
            {"train_languages": FOUR, "translated": ["de", "fr", "sw"], "sampling_temperature": 2.0},
            FOUR,
            "translate-train-all: of the evaluated languages de, fr, sw trained on machine translations; "
            "sampling temperature 2",
        ),
        (
            {"train_languages": ["de"], "translated": ["de"]},
            ["de"],
            "translate-train: of the evaluated languages de trained on machine translations",
        ),
        ({"sampling_temperature": 3.0}, FOUR, "zero-shot from en"),  # one table: nothing is sampled
        # few-shot
        (
            {"shots": shots(de="validation", fr="train")},
            FOUR,
            "few-shot (k=2) in de, fr, beside all of en",
        ),
        (
            {"shots": shots(de="validation"), "select_languages": ["en", "sw"], "sampling_temperature": 5.0},
            FOUR,
            "few-shot (k=2) in de, beside all of en, selected with labels of sw; sampling temperature 5",
        ),
        (
            {"shots": shots(de="train"), "train_languages": [], "training": {}, "select_split": None},
            FOUR,
            "few-shot (k=2) in de, alone",
        ),
        # several training sets
        (
            {"training": {"XNLI": ["en"], "ANLI": ["en"]}},
            FOUR,
            "zero-shot from en; joint training on XNLI, ANLI",
        ),
        ({"training": {"ANLI": ["en"]}}, FOUR, "zero-shot from en; trained on ANLI"),
        # text alone
        ({**MASKED}, FOUR, "trained on text of en"),
        ({**MASKED, "train_languages": FOUR, "select_languages": FOUR}, FOUR, "trained on text of en, de, fr, sw"),
        ({"train_languages": [], "training": {}, "select_split": None}, FOUR, "no training here: the model as it came"),
        # one run after another
        ({"parents": [parent()]}, FOUR, "zero-shot from en; sequential: from other (XNLI)"),
        (
            {"parents": [parent(**MASKED, train_languages=["sw", "de"], training={"text": ["sw", "de"]})]},
            FOUR,
            "zero-shot from en; sequential: from other (text)",
        ),
        (
            {"parents": [parent(train_languages=["swh_Latn"], training={}), parent(recipe="third")]},
            FOUR,
            "cross-lingual, begun from a run with labels of sw; sequential: from other (Other), then third (XNLI)",
        ),
        (
            {"parents": [parent(select_languages=["de"])], "select_languages": ["fr"]},
            FOUR,
            "cross-lingual, selected with labels of fr, begun from a run with labels of de; "
            "sequential: from other (XNLI)",
        ),
        (
            {"parents": [parent(shots=shots(de="train"))]},
            FOUR,
            "cross-lingual, begun from a run with labels of de; sequential: from other (XNLI)",
        ),
        (
            {"parents": [parent(train_languages=["de"])], "train_languages": [], "training": {}, "select_split": None},
            ["de"],
            "no training here: the model as it came, begun from a run with labels of de; sequential: from other (XNLI)",
        ),
    ],
)
def test_what_a_run_is_called(changes: dict[str, Any], languages: list[str], setting: str) -> None:
    assert protocol(**changes).setting(languages) == setting


def test_seen_languages_are_those_of_training_shots_selection_and_earlier_runs() -> None:
    before = [parent(train_languages=["tr"]), parent(train_languages=["ur"], **MASKED)]
    run = protocol(shots=shots(de="train"), select_languages=["fr"], parents=before)
    assert run.seen_languages == {"en", "de", "fr", "tr"}


def test_the_page_names_shots_and_earlier_runs() -> None:
    run = protocol(shots=shots(de="validation", fr="train"), parents=[parent(), parent(select_split=None, kind="")])
    assert run.notes() == [
        "Shots: 2 of de (validation), 2 of fr (train); their ids are in report.json, "
        "and validation was scored without them.",
        "Began from runs/other/seed-1: other, sequence_classification on XNLI in en, selected on validation of en.",
        "Began from runs/other/seed-1: other, task unknown on XNLI in en.",
    ]
    assert protocol().notes() == []


def test_a_language_is_itself_under_every_code_but_not_in_another_script() -> None:
    assert same_language("en") == same_language("eng") == same_language("eng_Latn")
    assert same_language("zho_Hans") != same_language("zho_Hant")
    assert same_language("ar") == same_language("arb_Arab")


def test_an_entry_of_another_version_is_not_taken() -> None:
    with pytest.raises(TypeError, match="speed"):
        of_parent(parent() | {"speed": 1})
