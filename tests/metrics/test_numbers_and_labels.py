"""Correlations and several labels per example, against scipy and scikit-learn."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from xlmrxl_train import metrics


def score(name: str, predictions: list, references: list) -> float:
    metric = metrics.load(name)
    return metric.fold(metric.statistics(predictions, references))


def test_correlations_by_hand() -> None:
    # Deviations -1 0 1 and -4 -1 5 (x 1/3 apart): 9 / sqrt(2 * 42).
    assert score("pearson", [1.0, 2.0, 3.0], [1.0, 4.0, 10.0]) == pytest.approx(9 / math.sqrt(84))
    assert score("spearman", [1.0, 2.0, 3.0], [1.0, 4.0, 10.0]) == pytest.approx(1.0)
    # Ranks 1.5 1.5 3 and 1 2 3.
    assert score("spearman", [5.0, 5.0, 9.0], [0.1, 0.2, 0.3]) == pytest.approx(math.sqrt(3) / 2)
    assert score("pearson", [1.0, 2.0], [3.0, 1.0]) == pytest.approx(-1.0)


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_what_does_not_vary_has_no_correlation(name: str) -> None:
    assert math.isnan(score(name, [1.0, 1.0, 1.0], [1.0, 2.0, 3.0]))
    assert math.isnan(score(name, [1.0, 2.0, 3.0], [0.1, 0.1, 0.1]))
    assert math.isnan(score(name, [1.0], [1.0]))
    assert math.isnan(score(name, [1.0, math.nan, 3.0], [1.0, 2.0, 3.0]))


@pytest.mark.parametrize(("name", "peer"), [("pearson", scipy.stats.pearsonr), ("spearman", scipy.stats.spearmanr)])
@pytest.mark.parametrize("decimals", [0, 6])  # 0: many ties
@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_correlations_are_those_of_scipy(name: str, peer, decimals: int, scale: float) -> None:
    random = np.random.default_rng(7)
    for size in (2, 3, 50, 1000):
        true = np.round(random.normal(size=size) * 2, decimals)
        predicted = np.round(true + random.normal(size=size) * 2, decimals) + 1000
        if np.ptp(true) and np.ptp(predicted):
            expected = peer(predicted * scale, true * scale).statistic
            assert score(name, list(predicted * scale), list(true * scale)) == pytest.approx(expected, abs=1e-10)


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.lists(st.integers(0, 1), min_size=4, max_size=4)] * 2), min_size=1, max_size=12))
def test_several_labels_are_scored_as_by_scikit_learn(examples: list[tuple[list[int], list[int]]]) -> None:
    predicted, gold = [example[0] for example in examples], [example[1] for example in examples]
    for name, average in (("micro_f1", "micro"), ("multilabel_macro_f1", "macro")):
        expected = f1_score(np.array(gold), np.array(predicted), average=average, zero_division=0)
        assert score(name, predicted, gold) == pytest.approx(expected, abs=1e-12)


def test_several_labels_by_hand() -> None:
    predicted, gold = [[1, 0, 0], [1, 1, 0]], [[1, 1, 0], [0, 1, 0]]
    # Right 1 1 0, predicted 2 1 0, gold 1 2 0 per label.
    assert score("micro_f1", predicted, gold) == pytest.approx(2 * 2 / (3 + 3))
    assert score("multilabel_macro_f1", predicted, gold) == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert score("micro_f1", [[0, 0]], [[0, 0]]) == score("multilabel_macro_f1", [[0, 0]], [[0, 0]]) == 0.0
    assert score("micro_f1", [[1.0, 0.0]], [[1.0, 0.0]]) == 1.0


def test_macro_f1_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    predicted, gold = random.integers(0, 5, 200), random.integers(0, 7, 200)
    expected = f1_score(gold, predicted, average="macro", zero_division=0)
    assert score("macro_f1", list(predicted), list(gold)) == pytest.approx(expected, abs=1e-12)
