"""Perplexity: the exponential of the mean negative log likelihood per predicted token.

Every token counts the same, whichever example it is in, so examples are weighted by their number of targets.
"""

from collections.abc import Sequence

import numpy as np

HIGHER_IS_BETTER = False


def statistics(predictions: Sequence[float], references: Sequence[float]) -> np.ndarray:
    """Return summed loss in nats and number of predicted tokens, [examples, 2].

    Args:
        predictions: The summed loss of each example.
        references: The number of tokens that each example predicts.
    """
    return np.stack([np.asarray(predictions), np.asarray(references)], axis=1).astype(np.float64)


def fold(rows: np.ndarray) -> float:
    """Return the perplexity, 1 or more; NaN where nothing was predicted."""
    tokens = rows[:, 1].sum()
    return float(np.exp(rows[:, 0].sum() / tokens)) if tokens else float("nan")
