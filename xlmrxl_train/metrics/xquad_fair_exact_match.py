"""Exact match of answers by MLQA's rules in the languages of XQuAD: nobody's official figure.

It stands beside `squad_exact_match`, which takes no full-width punctuation out. See `answer_tokens.fair` and
`answers.exact_matches`.
"""

from collections.abc import Sequence

import numpy as np

from xlmrxl_train.metrics import accuracy, answers
from xlmrxl_train.metrics.answer_tokens import FAIR_LANGUAGES, fair

HIGHER_IS_BETTER = True
LANGUAGES = FAIR_LANGUAGES  # of the answers


def statistics(predictions: Sequence[str], references: Sequence[answers.Answers]) -> np.ndarray:
    """Return 1.0 where the answer is any of the gold answers, else 0.0, as [examples, 1].

    Args:
        predictions: Texts; "" where there is no answer.
        references: Gold answers of each question, {"texts": [...], "language": "zh"}, the language of the texts.
    """
    return answers.exact_matches(predictions, references, fair)


fold = accuracy.fold
