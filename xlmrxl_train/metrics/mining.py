"""Which score a pair of sentences must have to be taken for a translation: BUCC's threshold, set on its dev split.

Source: `bucc_optimize` and `bucc_extract` of google-research/xtreme third_party/utils_retrieve.py at 4940374c, which
come from facebookresearch/LASER tasks/bucc/bucc.py at 1fd225f6.
"""

from collections.abc import Sequence

import numpy as np


def best_threshold(scores: Sequence[float], is_gold: Sequence[bool], num_gold: int) -> float:
    """Return the threshold of the best F1: midway between the last pair that is taken and the next.

    Of equal F1 the higher threshold wins. If all pairs are to be taken it is the lowest score (there the official
    script fails with an IndexError); if no pair is gold it is 0.

    Args:
        scores: Of candidate pairs, each pair once.
        is_gold: Whether the pair is a translation.
        num_gold: How many pairs there are to be found, also those that are no candidates.
    """
    if not np.any(is_gold):
        return 0.0
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    descending = np.asarray(scores, dtype=np.float64)[order]
    right = np.cumsum(np.asarray(is_gold, dtype=bool)[order])
    precision, recall = right / np.arange(1, len(right) + 1), right / num_gold
    # In the official order of operations, so that what is a tie there is one here.
    f1 = 2 * precision * recall / np.where(right, precision + recall, 1)
    last = int(np.argmax(f1))
    return float((descending[last] + descending[min(last + 1, len(descending) - 1)]) / 2)
