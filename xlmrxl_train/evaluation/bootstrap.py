"""Confidence intervals and paired tests from resampled examples."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

CONFIDENCE = 0.95
SEED = 20_111  # fixed, so that equal predictions have equal intervals

Fold = Callable[[np.ndarray], float]  # a metric's score of some rows, [examples, k]


def interval(rows: np.ndarray, fold: Fold, resamples: int) -> tuple[float, float]:
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
    return bounds(scores)


def bounds(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Return the quantiles between which the middle 95 % of resampled values lie."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def resampled_mean(tables: Sequence[np.ndarray], fold: Fold, resamples: int, *, side: int = 0) -> np.ndarray:
    """Return the mean score of several runs on resampled examples, and on resampled runs, float64 [resamples].

    Sample b holds the same examples for every run and for every set of n examples, and the same runs for every language
    of a side. So differences between runs are paired, and the mean over languages of a parallel test set, or of one
    that is not, varies as it should.

    Args:
        tables: The statistics of each run, each [n, k], examples in one order.
        fold: The metric's score of some rows.
        resamples: Number of samples.
        side: 0 or 1: the two sides of a comparison draw their runs apart.
    """
    num_runs, n = len(tables), len(tables[0])
    runs = np.random.default_rng([SEED, side, num_runs]).integers(num_runs, size=(resamples, num_runs))
    means = np.empty(resamples)
    for sample, examples in enumerate(_draws(n, resamples)):
        weights = np.bincount(runs[sample], minlength=num_runs)
        means[sample] = sum(
            weight * fold(table[examples]) for weight, table in zip(weights, tables, strict=True) if weight
        )
    return means / num_runs


def _draws(n: int, resamples: int) -> Iterator[np.ndarray]:
    random = np.random.default_rng([SEED, n])
    for _ in range(resamples):
        yield random.integers(n, size=n)


def two_sided_p(differences: np.ndarray) -> float:
    """Return how often resampled differences fall on the other side of 0, doubled, as for a test in both directions.

    Source: Efron and Tibshirani (1993), section 15.4, with 1 added to count and number so that p is never 0.
    """
    below, above = int((differences <= 0).sum()), int((differences >= 0).sum())
    return min(1.0, 2 * (min(below, above) + 1) / (len(differences) + 1))
