"""Metrics of classes and of likelihood, against values worked by hand."""

import math

import numpy as np
import pytest

from xlmrxl_train import metrics
from xlmrxl_train.errors import ConfigError

# Three classes; class 2 is never predicted, class 3 is absent. Per class precision, recall, F1:
#   0: 2/3, 2/2, 4/5   1: 1/2, 1/2, 1/2   2: 0, 0, 0
PREDICTIONS = [0, 0, 0, 1, 1]
REFERENCES = [0, 0, 1, 1, 2]


def score(name: str, predictions: list, references: list) -> float:
    metric = metrics.load(name)
    return metric.fold(metric.statistics(predictions, references))


def test_accuracy_counts_equal_classes() -> None:
    assert score("accuracy", PREDICTIONS, REFERENCES) == pytest.approx(3 / 5)


def test_macro_f1_is_the_mean_over_present_classes() -> None:
    assert score("macro_f1", PREDICTIONS, REFERENCES) == pytest.approx((4 / 5 + 1 / 2 + 0) / 3)


def test_macro_f1_leaves_out_classes_that_occur_nowhere() -> None:
    assert score("macro_f1", [0, 5], [0, 5]) == 1.0


def test_macro_f1_equals_its_definition_on_random_classes() -> None:
    random = np.random.default_rng(0)
    predictions, references = random.integers(0, 7, 500), random.integers(0, 7, 500)
    f1 = []
    for label in sorted({*predictions, *references}):
        right = ((predictions == label) & (references == label)).sum()
        precision = right / max(1, (predictions == label).sum())
        recall = right / max(1, (references == label).sum())
        f1.append(2 * precision * recall / (precision + recall) if right else 0.0)
    assert score("macro_f1", list(predictions), list(references)) == pytest.approx(np.mean(f1), abs=1e-12)


def test_perplexity_weighs_tokens_equally() -> None:
    assert score("perplexity", [2.0, 6.0], [1, 3]) == pytest.approx(math.exp(2))
    assert math.isnan(score("perplexity", [0.0], [0]))


def test_an_unknown_metric_is_named() -> None:
    with pytest.raises(ConfigError, match=r"dataset.metrics must be of accuracy, .*, chrf, got 'rouge'"):
        metrics.load("rouge")
