"""Predictions on disk, from a real run: every example, in order, with the statistics that its score comes from."""

import gzip
import json
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from xlmrxl_train import load_config, metrics, train
from xlmrxl_train.config import DatasetConfig, SequenceClassificationConfig
from xlmrxl_train.evaluation import evaluator as evaluation
from xlmrxl_train.evaluation.predictions import PredictionFile
from xlmrxl_train.evaluation.tally import Tally
from xlmrxl_train.run import evaluate
from xlmrxl_train.tasks import Prediction
from xlmrxl_train.tasks.sequence_classification import SequenceClassification


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "demo"
    words = ["recipe=demo", "train.max_steps=2", "evaluate.every=0", "evaluate.languages=[en,th]", f"run.dir={folder}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "GATHERED_EXAMPLES", 50)  # several rounds
        train(load_config(words))
    return folder


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def sentences_of(language: str) -> list[list[str]]:
    file = resources.files("xlmrxl_train.data").joinpath(f"sample/nli/test-{language}.tsv.gz")
    rows = gzip.decompress(file.read_bytes()).decode().splitlines()[1:]
    return [row.split("\t")[:2] for row in rows]


def test_scores_are_those_of_the_lines(run: Path) -> None:
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    for language in ("en", "th"):
        lines = lines_of(run / "predictions" / f"{language}.jsonl")
        assert [line["id"] for line in lines] == [str(number) for number in range(180)]
        assert {line["reference"] for line in lines} == {"entailment", "neutral", "contradiction"}
        assert [line["texts"] for line in lines] == sentences_of(language)
        assert all(1 / 3 <= line["confidence"] <= 1 for line in lines)
        right = [line["statistics"]["accuracy"] == [1.0] for line in lines]
        assert right == [line["prediction"] == line["reference"] for line in lines]
        for metric in ("accuracy", "macro_f1"):
            rows = np.array([line["statistics"][metric] for line in lines])
            assert metrics.load(metric).fold(rows) == report["languages"][language][metric]
    assert not list((run / "predictions").glob(".*"))


def test_a_later_evaluation_writes_its_own(run: Path) -> None:
    first = lines_of(run / "predictions" / "en.jsonl")
    config = load_config(["recipe=demo", "evaluate.languages=[en]", f"run.dir={run}"])
    evaluate(run, config)
    assert lines_of(run / "evaluation" / "sample_nli" / "predictions" / "en.jsonl") == first


def test_none_are_written_where_they_are_not_wanted(tmp_path: Path) -> None:
    words = ["recipe=demo", "train.max_steps=1", "evaluate.every=0", "evaluate.languages=[en]", "data.limit=6"]
    train(load_config([*words, "evaluate.predictions=false", f"run.dir={tmp_path / 'run'}"]))
    assert not (tmp_path / "run" / "predictions").exists()


def test_what_stops_early_leaves_no_file(tmp_path: Path) -> None:
    file = PredictionFile(tmp_path / "en.jsonl", 2)
    file.add(1, {"id": "b"})
    file.discard()
    assert not list(tmp_path.iterdir())


class Together(SequenceClassification):
    decides_together = True

    def decide(self, predictions: list[Prediction], split: str, language: str) -> list[Prediction]:
        assert (len(predictions), split, language) == (3, "test", "en")
        for item in predictions:
            item.prediction = 1
        return predictions


def test_a_task_may_decide_about_all_examples_together() -> None:
    dataset = DatasetConfig(name="x", labels=["a", "b"], columns={"text": "t", "label": "l"})
    task = Together(SequenceClassificationConfig(), dataset, None)  # type: ignore[arg-type]
    tally = Tally(task, "test", "en", ["0", "1", "2"], None)
    tally.add([Prediction(table=0, example=2, prediction=0, reference=1)])
    assert not tally.statistics and tally.missing == [0, 1]
    tally.add([Prediction(table=0, example=place, prediction=0, reference=place) for place in (0, 1)])
    assert tally.statistics["accuracy"].tolist() == [[0.0], [1.0], [1.0]]
    tally.add([Prediction(table=0, example=0, prediction=0, reference=0)])
    assert tally.doubled == [0]


def test_predictions_without_gold_are_written_and_not_scored(tmp_path: Path) -> None:
    dataset = DatasetConfig(name="x", labels=["a", "b"], columns={"text": "t", "label": "l"})
    task = SequenceClassification(SequenceClassificationConfig(), dataset, None)  # type: ignore[arg-type]
    task.labelled = False
    tally = Tally(task, "test", "en", ["x", "y"], PredictionFile(tmp_path / "en.jsonl", 2))
    tally.add([Prediction(table=0, example=place, prediction=place, reference=None) for place in (1, 0)])
    tally.close()
    assert not tally.statistics and not tally.missing
    assert lines_of(tmp_path / "en.jsonl") == [
        {"id": "x", "prediction": "a", "reference": None},
        {"id": "y", "prediction": "b", "reference": None},
    ]
