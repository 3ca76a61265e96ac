"""What metrics share that fold counts: found and right, found, and to be found."""

from collections.abc import Iterable, Set
from typing import Any

import numpy as np


def of_sets(pairs: Iterable[tuple[Set[Any], Set[Any]]]) -> np.ndarray:
    """Count what is in both sets, in the first and in the second.

    Args:
        pairs: What was predicted and what is gold, per example.

    Returns:
        True positives, predicted and gold, float64 [examples, 3].
    """
    rows = [(len(predicted & gold), len(predicted), len(gold)) for predicted, gold in pairs]
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def f1(rows: np.ndarray) -> float:
    """Return the F1 of the counts of all rows together (micro-averaged), 0 to 1.

    It is 0 where nothing is right, also where nothing was predicted and nothing is gold, as in seqeval and scikit-learn
    with their default `zero_division`.
    """
    right, predicted, gold = rows.sum(axis=0).tolist()
    return 2 * right / (predicted + gold) if right else 0.0
