"""chrF of translations: F2 of sequences of one to six characters, spaces left out.

sacrebleu's `corpus_chrf` with its defaults (chrF2, no words) divided by 100.

Source: sacrebleu 2.6.0, sacrebleu/metrics/chrf.py; Popović 2015, aclanthology.org/W15-3049.
"""

from collections.abc import Sequence

import numpy as np

from xlmrxl_train.metrics import sacrebleu_scores

HIGHER_IS_BETTER = True
_CHRF = sacrebleu_scores.metric_of("CHRF")


def statistics(predictions: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Return for n = 1 to 6 the n-grams predicted, of the reference, and in both, [examples, 18].

    Args:
        predictions: Translations.
        references: The right ones.
    """
    return sacrebleu_scores.counts_of(_CHRF, predictions, references)


def fold(rows: np.ndarray) -> float:
    """Return chrF of all examples together, 0 to 1."""
    return sacrebleu_scores.score_of(_CHRF, rows)
