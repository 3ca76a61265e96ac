"""Mined pairs: the threshold by hand, and against the definition."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlmrxl_train import metrics
from xlmrxl_train.metrics.mining import best_threshold


def f1_at(threshold: float, scores: list[float], is_gold: list[bool], num_gold: int) -> float:
    """Return the F1 of taking every pair whose score is at least the threshold: 2 right / (taken + gold)."""
    taken = [gold for score, gold in zip(scores, is_gold, strict=True) if score >= threshold]
    return 2 * sum(taken) / (len(taken) + num_gold)


def test_the_threshold_lies_midway_below_the_last_pair_taken() -> None:
    # Taken 1, 2, 3, 4 of them: F1 with 3 gold pairs 2/4, 2/5, 4/6, 4/7.
    scores, is_gold = [1.0, 1.5, 1.25, 2.0], [False, False, True, True]
    assert best_threshold(scores, is_gold, 3) == (1.25 + 1.0) / 2
    assert f1_at(1.125, scores, is_gold, 3) == pytest.approx(4 / 6)


def test_of_equal_f1_the_higher_threshold_wins() -> None:
    # Taken 1 or 4: 2 * 1 / (1 + 2) = 2 * 2 / (4 + 2), also as the official script computes it.
    assert best_threshold([4.0, 3.0, 2.0, 1.0], [True, False, False, True], 2) == 3.5


def test_a_pair_at_the_threshold_is_taken() -> None:
    # The neighbours score the same, so midway is their score, and both are taken.
    assert best_threshold([2.0, 2.0, 1.0], [True, False, False], 1) == 2.0
    assert f1_at(2.0, [2.0, 2.0, 1.0], [True, False, False], 1) == pytest.approx(2 / 3)


def test_all_pairs_are_taken_down_to_the_lowest() -> None:
    assert best_threshold([3.0, 2.0], [True, True], 2) == 2.0
    assert f1_at(2.0, [3.0, 2.0], [True, True], 2) == 1.0


def test_without_gold_pairs_the_threshold_is_zero() -> None:
    assert best_threshold([1.0, 2.0], [False, False], 5) == 0.0
    assert best_threshold([], [], 5) == 0.0
    assert f1_at(0.0, [1.0, 2.0], [False, False], 5) == 0.0
    assert f1_at(0.0, [], [], 5) == 0.0


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(-50, 50), st.booleans()), min_size=1, max_size=30, unique_by=lambda pair: pair[0]),
    st.integers(0, 5),
)
def test_no_threshold_is_better(pairs: list[tuple[int, bool]], missed: int) -> None:
    scores, is_gold = [float(pair[0]) for pair in pairs], [pair[1] for pair in pairs]
    num_gold = sum(is_gold) + missed
    if any(is_gold):
        best = f1_at(best_threshold(scores, is_gold, num_gold), scores, is_gold, num_gold)
        assert best == pytest.approx(max(f1_at(score, scores, is_gold, num_gold) for score in scores))


def test_mined_pairs_are_scored_as_sets() -> None:
    metric = metrics.load("mining_f1")
    # Four source sentences: right; not gold; missed; one of two, named twice.
    rows = metric.statistics([["t1"], ["t9"], [], ["t4", "t4"]], [["t1"], [], ["t3"], ["t4", "t5"]])
    assert rows.tolist() == [[1, 1, 1], [0, 1, 0], [0, 0, 1], [1, 1, 2]]
    assert metric.fold(rows) == pytest.approx(2 * 2 / (3 + 4))
    # The same pairs through the threshold: three candidates above it, four gold pairs.
    assert f1_at(0.5, [0.9, 0.8, 0.7, 0.1], [True, False, True, False], 4) == metric.fold(rows)
