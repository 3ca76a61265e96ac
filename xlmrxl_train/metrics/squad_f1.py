"""Word F1 of answers by the rules of SQuAD v1.1, in every language: what XTREME reports for XQuAD and TyDiQA.

See `answer_tokens.squad` and `answers.overlaps` for the rules and their sources.
"""

from collections.abc import Sequence

import numpy as np

from xlmrxl_train.metrics import accuracy, answers
from xlmrxl_train.metrics.answer_tokens import squad

HIGHER_IS_BETTER = True


def statistics(predictions: Sequence[str], references: Sequence[answers.Reference]) -> np.ndarray:
    """Return the best F1 of words over the gold answers, as [examples, 1].

    Args:
        predictions: Texts; "" where there is no answer.
        references: Gold answers of each question: a list of texts, or {"texts": [...], "language": ...} (ignored).
    """
    return answers.overlaps(predictions, references, squad)


fold = accuracy.fold
