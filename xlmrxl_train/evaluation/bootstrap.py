"""Confidence intervals from resampled examples."""

from collections.abc import Callable

import numpy as np

CONFIDENCE = 0.95
SEED = 20_111  # fixed, so that equal predictions have equal intervals


def interval(rows: np.ndarray, fold: Callable[[np.ndarray], float], resamples: int) -> tuple[float, float]:
    """Return the percentile bootstrap interval of `fold` over examples.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 13.3.

    Args:
        rows: Statistics of a metric, one row per example, [n, k].
        fold: The metric's score of some rows.
        resamples: Number of samples of n examples drawn with replacement.
    """
    random = np.random.default_rng(SEED)
    n = len(rows)
    scores = [fold(rows[random.integers(n, size=n)]) for _ in range(resamples)]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(scores, [tail, 1 - tail])
    return float(low), float(high)
