"""Scores of translations by sacrebleu: what it counts in each sentence, and its formula on the sum of the counts.

sacrebleu is an optional library: `pip install xlmrxl_train[translation]`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from xlmrxl_train.errors import ConfigError


def metric_of(name: str, **options: Any) -> Any:
    """Return sacrebleu's metric: BLEU or CHRF.

    Raises:
        ConfigError: sacrebleu is not installed.
    """
    try:
        from sacrebleu import metrics
    except ImportError:
        raise ConfigError(
            f"dataset.metrics needs sacrebleu for {name.lower()}, got no such package. "
            "Install it with pip install 'xlmrxl_train[translation]'."
        ) from None
    return getattr(metrics, name)(**options)


def counts_of(metric: Any, predictions: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Return what `metric` counts in each sentence, one row per example."""
    rows = metric._extract_corpus_statistics(list(predictions), [list(references)])
    return np.asarray(rows, dtype=np.float64)


def score_of(metric: Any, rows: np.ndarray) -> float:
    """Return the score of all sentences together, from 0 to 1; sacrebleu's is 100 times as large."""
    # Its logarithms may leave a perfect score a few last digits above 100.
    return min(1.0, float(metric._compute_score_from_stats(rows.sum(0).tolist()).score) / 100)
