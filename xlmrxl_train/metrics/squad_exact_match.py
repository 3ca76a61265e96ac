"""Exact match of answers by the rules of SQuAD v1.1, in every language: what XTREME reports for XQuAD and TyDiQA.

See `answer_tokens.squad` and `answers.exact_matches` for the rules and their sources.
"""

from collections.abc import Sequence

import numpy as np

from xlmrxl_train.metrics import accuracy, answers
from xlmrxl_train.metrics.answer_tokens import squad

HIGHER_IS_BETTER = True


def statistics(predictions: Sequence[str], references: Sequence[answers.Reference]) -> np.ndarray:
    """Return 1.0 where the answer is any of the gold answers, else 0.0, as [examples, 1].

    Args:
        predictions: Texts; "" where there is no answer.
        references: Gold answers of each question: a list of texts, or {"texts": [...], "language": ...} (ignored).
    """
    return answers.exact_matches(predictions, references, squad)


fold = accuracy.fold
