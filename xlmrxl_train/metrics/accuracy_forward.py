"""Retrieval from text to text_pair: the share of sentences whose nearest one is their translation.

Source: XTREME's Tatoeba, arXiv 2003.11080, section 3.4.
"""

from collections.abc import Sequence

import numpy as np

from xlmrxl_train.metrics import accuracy

HIGHER_IS_BETTER = True


def statistics(predictions: Sequence[Sequence[int]], references: Sequence[int]) -> np.ndarray:
    """Return 1.0 where the right sentence was found, else 0.0, as [examples, 1].

    Args:
        predictions: The sentence found forward, and the one found backward.
        references: The right one of both.
    """
    return accuracy.statistics([found[0] for found in predictions], references)


fold = accuracy.fold
