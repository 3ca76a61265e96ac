"""Bootstrap intervals."""

import math

import numpy as np

from xlmrxl_train.evaluation.bootstrap import interval
from xlmrxl_train.metrics import accuracy


def test_the_interval_of_an_accuracy_is_near_the_normal_one() -> None:
    rows = np.array([[1.0]] * 700 + [[0.0]] * 300)
    low, high = interval(rows, accuracy.fold, 2000)
    half = 1.96 * math.sqrt(0.7 * 0.3 / 1000)
    assert abs(low - (0.7 - half)) < 0.006
    assert abs(high - (0.7 + half)) < 0.006


def test_equal_rows_have_equal_intervals() -> None:
    rows = np.random.default_rng(0).integers(0, 2, (50, 1)).astype(float)
    assert interval(rows, accuracy.fold, 100) == interval(rows.copy(), accuracy.fold, 100)
