"""Macro F1 of several labels per example: the unweighted mean of the labels' F1.

A label that occurs neither in predictions nor in references counts 0, unlike in `macro_f1`, where it is left out:
scikit-learn's `f1_score(average="macro")` (sklearn/metrics/_classification.py) does so too, since it takes the columns
of an indicator matrix for the labels.
"""

from collections.abc import Sequence

import numpy as np

HIGHER_IS_BETTER = True


def statistics(predictions: Sequence[Sequence[float]], references: Sequence[Sequence[float]]) -> np.ndarray:
    """Return predicted and gold 0 or 1 per label, [examples, 2 * labels].

    Args:
        predictions: Each example's 0 or 1 per label.
        references: The gold ones.
    """
    return np.concatenate([np.asarray(predictions), np.asarray(references)], axis=1).astype(np.float64)


def fold(rows: np.ndarray) -> float:
    """Return macro F1, 0 to 1."""
    predicted, gold = np.split(rows, 2, axis=1)
    found = (predicted + gold).sum(axis=0)
    return float((2 * (predicted * gold).sum(axis=0) / np.where(found, found, 1)).mean())
