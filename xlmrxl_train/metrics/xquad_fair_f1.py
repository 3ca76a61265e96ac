"""Word F1 of answers by MLQA's rules in the languages of XQuAD, Thai by characters: nobody's official figure.

It stands beside `squad_f1`, under which a Chinese or Thai answer is one word, right or wrong as a whole. See
`answer_tokens.fair` and `answers.overlaps`.
"""

from collections.abc import Sequence

import numpy as np

from xlmrxl_train.metrics import accuracy, answers
from xlmrxl_train.metrics.answer_tokens import FAIR_LANGUAGES, fair

HIGHER_IS_BETTER = True
LANGUAGES = FAIR_LANGUAGES  # of the answers


def statistics(predictions: Sequence[str], references: Sequence[answers.Answers]) -> np.ndarray:
    """Return the best F1 of words over the gold answers, as [examples, 1].

    Args:
        predictions: Texts; "" where there is no answer.
        references: Gold answers of each question, {"texts": [...], "language": "zh"}, the language of the texts.
    """
    return answers.overlaps(predictions, references, fair)


fold = accuracy.fold
