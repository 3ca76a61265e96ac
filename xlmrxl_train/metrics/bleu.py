"""BLEU of translations: words and sequences of up to four of them that are in the reference too, and the length.

sacrebleu's `corpus_bleu` with its defaults (tokenizer 13a, exponential smoothing) divided by 100. 13a parts words at
spaces and punctuation, so of languages written without spaces the score says little; chrF does not ask for words.

Source: sacrebleu 2.6.0, sacrebleu/metrics/bleu.py; Post 2018, arXiv 1804.08771.
"""

from collections.abc import Sequence

import numpy as np

from xlmrxl_train.metrics import sacrebleu_scores

HIGHER_IS_BETTER = True
_BLEU = sacrebleu_scores.metric_of("BLEU", force=True)  # no warning about text that is tokenised already


def statistics(predictions: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Return words predicted, words of the reference, then n-grams right and predicted, n = 1 to 4, [examples, 10].

    Args:
        predictions: Translations.
        references: The right ones.
    """
    return sacrebleu_scores.counts_of(_BLEU, predictions, references)


def fold(rows: np.ndarray) -> float:
    """Return BLEU of all examples together, 0 to 1."""
    return sacrebleu_scores.score_of(_BLEU, rows)
