"""Micro F1 of several labels per example: one F1 of all decisions together.

Source: scikit-learn's `f1_score(average="micro")` of indicator matrices (sklearn/metrics/_classification.py).
"""

from collections.abc import Sequence

import numpy as np

from xlmrxl_train.metrics import counts

HIGHER_IS_BETTER = True


def statistics(predictions: Sequence[Sequence[float]], references: Sequence[Sequence[float]]) -> np.ndarray:
    """Return labels right, predicted and gold, [examples, 3].

    Args:
        predictions: Each example's 0 or 1 per label.
        references: The gold ones.
    """
    return counts.of_sets(
        (set(np.flatnonzero(predicted).tolist()), set(np.flatnonzero(gold).tolist()))
        for predicted, gold in zip(predictions, references, strict=True)
    )


fold = counts.f1
