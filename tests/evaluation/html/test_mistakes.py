"""Which examples are the worst, of every kind of prediction."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.comparison.folders import write_run
from xlmrxl_train import metrics
from xlmrxl_train.evaluation.comparison.reading import FinishedRun, read_run
from xlmrxl_train.evaluation.html.mistakes import Mistakes, classes_of, mistakes_of


def run_of(folder: Path, metric: str, lines: list[dict[str, Any]], *, recipe: str = "demo") -> FinishedRun:
    """Write a run whose predictions are these lines."""
    truths = [line.pop("truth", line.get("reference")) for line in lines]
    guesses = [line.pop("guess", line.get("prediction")) for line in lines]
    write_run(folder, {"de": (guesses, truths)}, names=[metric], overrides=[f"recipe={recipe}"], predictions=False)
    rows = metrics.load(metric).statistics(guesses, truths)
    written = [
        line | {"id": str(number), "statistics": {metric: rows[number].tolist()}} for number, line in enumerate(lines)
    ]
    (folder / "predictions").mkdir()
    (folder / "predictions/de.jsonl").write_text("".join(json.dumps(line) + "\n" for line in written), encoding="utf-8")
    return read_run(folder)


def found(run: FinishedRun, keep: int = 3) -> Mistakes:
    mistakes = mistakes_of(run, "de", keep=keep)
    assert mistakes is not None
    return mistakes


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_of_classes_the_most_confident_come_first(metric: str, tmp_path: Path) -> None:
    confidences = [0.5, 0.9, 0.7, 0.99, 0.6]
    lines = [
        {"prediction": "neutral", "guess": 1, "confidence": confidence}
        | ({"reference": "neutral", "truth": 1} if number == 3 else {"reference": "entailment", "truth": 0})
        for number, confidence in enumerate(confidences)
    ]
    run = run_of(tmp_path / "run", metric, lines)
    mistakes = found(run)
    assert [(mistake.id, mistake.confidence) for mistake in mistakes.worst] == [("1", 0.9), ("2", 0.7), ("4", 0.6)]
    assert mistakes.num_wrong == 4
    assert mistakes.confusion == {("entailment", "neutral"): 4, ("neutral", "neutral"): 1}
    assert classes_of(run, [mistakes.confusion]) == ["entailment", "neutral"]
    assert mistakes_of(run, "fr", keep=3) is None


def test_of_words_only_those_that_differ_are_shown(tmp_path: Path) -> None:
    lines = [
        {"tokens": ["Das", "Haus", "."], "prediction": ["DET", "VERB", "PUNCT"], "reference": ["DET", "NOUN", "PUNCT"]},
        {"tokens": ["Ja", "."], "prediction": ["INTJ", "PUNCT"], "reference": ["INTJ", "PUNCT"]},
    ]
    run = run_of(tmp_path / "run", "tag_accuracy", lines, recipe="udpos")
    mistakes = found(run)
    (worst,) = mistakes.worst
    assert (worst.texts, worst.prediction, worst.reference) == (["Das Haus ."], "Haus: VERB", "Haus: NOUN")
    assert mistakes.confusion["NOUN", "VERB"] == 1 and mistakes.confusion["PUNCT", "PUNCT"] == 2


def test_of_answers_the_lowest_f1_comes_first(tmp_path: Path) -> None:
    def line(prediction: str, probability: float) -> dict[str, Any]:
        truth = {"texts": ["the old town"], "language": "en"}
        best = [{"text": prediction, "begin": 0, "probability": probability}]
        return {
            "question": "Where?",
            "prediction": prediction,
            "reference": truth["texts"],
            "truth": truth,
            "best": best,
        }

    run = run_of(
        tmp_path / "run", "squad_f1", [line("old town", 0.9), line("old", 0.3), line("here", 0.2)], recipe="xquad"
    )
    mistakes = found(run)
    assert [(mistake.id, mistake.confidence) for mistake in mistakes.worst] == [("2", 0.2), ("1", 0.3)]
    assert mistakes.worst[0].texts == ["Where?"] and mistakes.worst[0].reference == "the old town"
    assert mistakes.num_wrong == 2 and classes_of(run, [mistakes.confusion]) == []


def test_of_numbers_the_farthest_and_of_losses_the_highest_come_first(tmp_path: Path) -> None:
    lines = [{"prediction": guess, "reference": 1.0, "texts": ["a" * 900]} for guess in (1.0, 3.5, 0.5, 2.0)]
    mistakes = found(run_of(tmp_path / "numbers", "pearson", lines))
    assert [mistake.id for mistake in mistakes.worst] == ["1", "3", "2"] and mistakes.worst[0].prediction == "3.5"
    assert len(mistakes.worst[0].texts[0]) == 403
    lines = [{"loss": loss, "tokens": 1, "guess": loss, "truth": 1} for loss in (2.0, 5.0, 3.0)]
    mistakes = found(run_of(tmp_path / "losses", "loss", lines))
    assert [mistake.id for mistake in mistakes.worst] == ["1", "2", "0"]
    assert (mistakes.worst[0].prediction, mistakes.worst[0].reference) == ("loss 5.00 per token", None)
