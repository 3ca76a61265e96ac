"""Exact match of answers by MLQA's rules per language: what XTREME reports for MLQA.

See `answer_tokens.mlqa` and `answers.exact_matches` for the rules and their sources.
"""

from collections.abc import Sequence

import numpy as np

from xlmrxl_train.metrics import accuracy, answers
from xlmrxl_train.metrics.answer_tokens import MLQA_LANGUAGES, mlqa

HIGHER_IS_BETTER = True
LANGUAGES = MLQA_LANGUAGES  # of the answers


def statistics(predictions: Sequence[str], references: Sequence[answers.Answers]) -> np.ndarray:
    """Return 1.0 where the answer is any of the gold answers, else 0.0, as [examples, 1].

    Args:
        predictions: Texts; "" where there is no answer.
        references: Gold answers of each question, {"texts": [...], "language": "zh"}, the language of the texts.
    """
    return answers.exact_matches(predictions, references, mlqa)


fold = accuracy.fold
