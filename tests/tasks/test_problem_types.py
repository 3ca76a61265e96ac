"""Regression and several labels, from a user's CSV to the report: each needs one YAML file and its metrics."""

import json
from pathlib import Path

import numpy as np
import pytest

from xlmrxl_train import load_config, metrics, train
from xlmrxl_train.cli import main
from xlmrxl_train.evaluation.evaluator import LanguageScore
from xlmrxl_train.session import SAMPLE_TOKENIZER

NOUNS, WEATHER = ["girl", "boy", "dog", "teacher"], ["rain", "sun", "wind"]

REVIEWS = """name: my reviews
kind: sequence_classification
languages: [en, de]
columns: {text: review, text_pair: answer, label: stars}
language_column: lang
files:
  train: [{path: reviews.csv, separator: ";"}]
  validation: [{path: reviews.csv, separator: ";"}]
  test: [{path: reviews.csv, separator: ";"}]
"""
TOPICS = """name: my topics
kind: sequence_classification
languages: [en, de]
columns: {text: text, label: topics}
language_column: lang
labels: [rain, sun, wind]
files:
  train: [{path: topics.csv}]
  validation: [{path: topics.csv}]
  test: [{path: topics.csv}]
"""


def words_of(folder: Path, name: str, yaml: str, problem: str, rows: list[str], steps: int) -> list[str]:
    """Write a CSV and its YAML; return the command's words."""
    (folder / "conf" / "dataset").mkdir(parents=True)
    (folder / "conf" / "dataset" / f"{name}.yaml").write_text(yaml)
    (folder / f"{name}.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return [
        "recipe=demo", f"dataset={name}", f"task.problem_type={problem}", "data.source=files", f"data.root={folder}",
        f"tokenizer.path={SAMPLE_TOKENIZER}", "train.languages=[en]", "evaluate.languages=[]", f"run.dir={folder}/run",
        f"train.max_steps={steps}", "train.batch_size=12", "optimizer.lr=2e-3", f"evaluate.every={steps // 2}",
        "evaluate.bootstrap=50",
    ]  # fmt: skip


def scores_and_lines(folder: Path, words: list[str]) -> tuple[dict[str, LanguageScore], dict[str, list[dict]]]:
    report = train(load_config(words, config_dir=folder / "conf"))
    assert report is not None
    lines = {
        code: [json.loads(line) for line in (folder / f"run/predictions/{code}.jsonl").read_text().splitlines()]
        for code in report.languages
    }
    for code, score in report.languages.items():
        for name, value in score.values.items():
            rows = np.array([line["statistics"][name] for line in lines[code]])
            assert metrics.load(name).fold(rows) == pytest.approx(value, nan_ok=True)
    return report.languages, lines


def review(number: int, lang: str) -> str:
    """Stars are the number of dogs, and half a star more where the sun shines; fields are quoted as CSV quotes them."""
    dogs, sun = number % 4, number % 3 == 0
    text = f'The ""dog""; {"the dog " * dogs}and\nthe {NOUNS[number % 4]}.' if sun else f"The {'dog ' * dogs}sleeps."
    return f'"{text}";"{"The sun shines." if sun else "It is late; it rains."}";{dogs + 0.5 * sun};{lang}'


def test_regression(tmp_path: Path) -> None:
    rows = ["review;answer;stars;lang", *(review(number, "en" if number % 2 else "de") for number in range(72))]
    words = words_of(tmp_path, "reviews", REVIEWS, "regression", rows, steps=90)
    scores, lines = scores_and_lines(tmp_path, words)
    assert list(scores["en"].values) == ["pearson", "spearman"] and scores["en"].n == scores["de"].n == 36
    assert scores["en"].values["pearson"] > 0.9
    assert [line["reference"] for line in lines["en"][:4]] == [1.0, 3.5, 1.0, 3.0]
    assert all(isinstance(line["prediction"], float) for line in lines["de"])
    low, high = scores["en"].intervals["pearson"]
    assert low <= scores["en"].values["pearson"] <= high


def test_a_number_that_is_none_is_found_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["review;answer;stars;lang", review(0, "en"), '"A; b";c;many;en']
    words = words_of(tmp_path, "reviews", REVIEWS, "regression", rows, steps=2)
    assert main(["--config-dir", str(tmp_path / "conf"), *words, "evaluate.languages=[en]"]) == 2
    message = (
        "reviews.csv:4: column 'stars' must hold a finite number, got 'many'. Mend the row."  # row 1 has two lines
    )
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_several_labels(tmp_path: Path) -> None:
    rows = ["text,topics,lang"]
    for number in range(64):
        present = [word for place, word in enumerate(WEATHER) if number >> place & 1]
        said = ", ".join(f"the {word}" for word in present) or "nothing"
        rows.append(f'"The girl says ""{said}"", then sleeps.","{", ".join(present)}",{"en" if number < 32 else "de"}')
    words = words_of(tmp_path, "topics", TOPICS, "multi_label_classification", rows, steps=90)
    scores, lines = scores_and_lines(tmp_path, words)
    assert list(scores["de"].values) == ["micro_f1", "multilabel_macro_f1"] and scores["de"].n == 32
    assert scores["en"].values["micro_f1"] > 0.9 and scores["en"].values["multilabel_macro_f1"] > 0.9
    assert [line["reference"] for line in lines["en"][:4]] == [[], ["rain"], ["sun"], ["rain", "sun"]]
    assert all(set(line["prediction"]) <= set(WEATHER) for line in lines["de"])
