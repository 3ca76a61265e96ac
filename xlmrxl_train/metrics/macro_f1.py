"""Macro F1: the unweighted mean over classes of the harmonic mean of precision and recall.

A class that neither predictions nor references contain is left out; one that is never right counts 0. This is
scikit-learn's `f1_score(average="macro")` (sklearn/metrics/_classification.py), whose labels are those present.
"""

from collections.abc import Sequence

import numpy as np

HIGHER_IS_BETTER = True


def statistics(predictions: Sequence[int], references: Sequence[int]) -> np.ndarray:
    """Return predicted and true class as [examples, 2]."""
    return np.stack([np.asarray(predictions), np.asarray(references)], axis=1).astype(np.float64)


def fold(rows: np.ndarray) -> float:
    """Return macro F1, 0 to 1."""
    classes = rows.astype(np.int64)
    size = int(classes.max()) + 1
    predicted = np.bincount(classes[:, 0], minlength=size)
    true = np.bincount(classes[:, 1], minlength=size)
    right = np.bincount(classes[classes[:, 0] == classes[:, 1], 0], minlength=size)
    present = predicted + true > 0
    return float((2 * right[present] / (predicted + true)[present]).mean())
