"""Accuracy: the share of examples whose predicted class is the reference.

Source: XNLI, Conneau et al. 2018 (arXiv 1809.05053), and XTREME's `evaluate.py` (google-research/xtreme).
"""

from collections.abc import Sequence

import numpy as np

HIGHER_IS_BETTER = True


def statistics(predictions: Sequence[int], references: Sequence[int]) -> np.ndarray:
    """Return 1.0 where the class is right, else 0.0, as [examples, 1]."""
    right = np.asarray(predictions) == np.asarray(references)
    return np.asarray(right, dtype=np.float64).reshape(-1, 1)


def fold(rows: np.ndarray) -> float:
    """Return the mean of the first column, 0 to 1."""
    return float(rows[:, 0].mean())
