"""Pearson's correlation between predicted and true numbers.

Source: `scipy.stats.pearsonr`, whose value it equals.
"""

from collections.abc import Sequence

import numpy as np

HIGHER_IS_BETTER = True


def statistics(predictions: Sequence[float], references: Sequence[float]) -> np.ndarray:
    """Return predicted and true number, [examples, 2]."""
    return np.stack([np.asarray(predictions), np.asarray(references)], axis=1).astype(np.float64)


def fold(rows: np.ndarray) -> float:
    """Return the correlation, -1 to 1; NaN where either column has one value only."""
    if len(rows) < 2 or (rows == rows[0]).all(axis=0).any():
        return float("nan")
    centred = rows - rows.mean(axis=0)
    centred /= np.abs(centred).max(axis=0)  # so that squares neither overflow nor vanish
    unit = centred / np.linalg.norm(centred, axis=0)
    return float(np.clip(unit[:, 0] @ unit[:, 1], -1, 1))
