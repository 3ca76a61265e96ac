"""Word F1 of answers by MLQA's rules per language: what XTREME reports for MLQA.

See `answer_tokens.mlqa` and `answers.overlaps` for the rules and their sources.
"""

from collections.abc import Sequence

import numpy as np

from xlmrxl_train.metrics import accuracy, answers
from xlmrxl_train.metrics.answer_tokens import MLQA_LANGUAGES, mlqa

HIGHER_IS_BETTER = True
LANGUAGES = MLQA_LANGUAGES  # of the answers


def statistics(predictions: Sequence[str], references: Sequence[answers.Answers]) -> np.ndarray:
    """Return the best F1 of words over the gold answers, as [examples, 1].

    Args:
        predictions: Texts; "" where there is no answer.
        references: Gold answers of each question, {"texts": [...], "language": "zh"}, the language of the texts.
    """
    return answers.overlaps(predictions, references, mlqa)


fold = accuracy.fold
