"""Spearman's rank correlation between predicted and true numbers; equal numbers share the mean of their ranks.

Source: `scipy.stats.spearmanr`, whose value it equals.
"""

import numpy as np

from xlmrxl_train.metrics import pearson

HIGHER_IS_BETTER = True

statistics = pearson.statistics


def fold(rows: np.ndarray) -> float:
    """Return the correlation of ranks, -1 to 1; NaN where either column has one value only, or a NaN."""
    if np.isnan(rows).any():
        return float("nan")
    return pearson.fold(np.stack([_ranks(rows[:, 0]), _ranks(rows[:, 1])], axis=1))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((count.cumsum() - (count - 1) / 2)[place])
