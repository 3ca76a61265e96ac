"""Loss of a language model: the mean negative log likelihood per predicted token, in nats; perplexity's logarithm."""

from collections.abc import Sequence

import numpy as np

from xlmrxl_train.metrics import perplexity

HIGHER_IS_BETTER = False


def statistics(predictions: Sequence[float], references: Sequence[float]) -> np.ndarray:
    """Return summed loss and number of predicted tokens, as `perplexity.statistics`."""
    return perplexity.statistics(predictions, references)


def fold(rows: np.ndarray) -> float:
    """Return the loss, 0 or more; NaN where nothing was predicted."""
    tokens = rows[:, 1].sum()
    return float(rows[:, 0].sum() / tokens) if tokens else float("nan")
