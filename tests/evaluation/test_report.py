"""What a report says of scores and of how they came about."""

import json

import pytest

from xlmrxl_train.evaluation.protocol import Protocol
from xlmrxl_train.evaluation.report import Report
from xlmrxl_train.evaluation.scores import LanguageScore


def report(**changes) -> Report:
    protocol = {
        "recipe": "xnli",
        "model": "mini",
        "dataset": "XNLI",
        "split": "test",
        "source": "files",
        "train_languages": ["en"],
        "select_split": "validation",
        "select_languages": ["en"],
        "select_metric": "accuracy",
        "stand_ins": [],
        "limit": None,
        "seed": 1,
        "steps": 10,
        "tokens": 1000,
        "selected_step": 10,
    } | changes
    scores = {
        "en": LanguageScore(values={"accuracy": 0.9}, n=100, intervals={"accuracy": (0.85, 0.95)}),
        "de": LanguageScore(values={"accuracy": 0.8}, n=100),
        "sw": LanguageScore(values={"accuracy": 0.6}, n=100),
    }
    return Report(protocol=Protocol(**protocol), languages=scores, metrics=["accuracy"])


def test_averages_and_transfer_gap() -> None:
    averages = report().averages()["accuracy"]
    assert averages["mean"] == pytest.approx(2.3 / 3)
    assert averages["mean_without_training_languages"] == pytest.approx(0.7)
    assert averages["transfer_gap"] == pytest.approx(0.2)


def test_without_other_languages_there_is_no_gap() -> None:
    averages = report(train_languages=["en", "de", "sw"]).averages()["accuracy"]
    assert averages["transfer_gap"] is None
    assert averages["mean_without_training_languages"] is None


def test_zero_shot_is_said_only_where_no_target_label_was_used() -> None:
    assert report().to_dict()["setting"] == "zero-shot from en"
    assert report(select_languages=["en", "de"]).to_dict()["setting"] == "cross-lingual, selected with labels of de"
    assert report(train_languages=["en", "de", "sw"]).to_dict()["setting"].startswith("supervised")


def test_stand_ins_and_limits_are_stamped_on_the_page() -> None:
    page = report(stand_ins=["CAD-NLI instead of MultiNLI"], limit=10).to_markdown()
    assert "**Stand-in training data**" in page
    assert "- CAD-NLI instead of MultiNLI" in page
    assert "**data.limit=10**" in page
    assert "stand-in" not in report().to_markdown().lower()


def test_the_page_names_languages_scores_and_intervals() -> None:
    page = report().to_markdown()
    assert "| en | English (trained) | Latn | " in page
    assert "| 90.0 | 85.0 to 95.0 | 100 |" in page
    assert "| transfer gap | 20.0 |" in page


def test_report_json_has_the_promised_keys(tmp_path) -> None:
    report().write(tmp_path)
    values = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert values["languages"]["en"] == {"accuracy": 0.9, "n": 100, "interval": {"accuracy": [0.85, 0.95]}}
    assert set(values) >= {"languages", "averages", "gap", "protocol"}
    assert (tmp_path / "report.md").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.md"]
