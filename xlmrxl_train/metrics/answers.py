"""Answers to questions beside gold answers: the best of exact match and word overlap over several golds.

Source: the official evaluate-v1.1.py of SQuAD and mlqa_evaluation_v1.py of MLQA (facebookresearch/MLQA at 5ef5c731),
which share these rules and differ in how they normalise a text. XTREME runs both unchanged (google-research/xtreme
install_tools.sh at 1e21ba07): MLQA's for MLQA, and for XQuAD and TyDiQA a copy of SQuAD's (allenai/bi-att-flow
squad/evaluate-v1.1.py at a315bc88) that scores the same and also lists wrong answers in a file.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict

import numpy as np


class Answers(TypedDict):
    """What is gold for a question."""

    texts: list[str]  # one or more
    language: str  # ISO 639-1, of the answers (and so of the context)


Reference = Answers | Sequence[str]
Normalise = Callable[[str, str], list[str]]  # text, language -> tokens


def exact_matches(predictions: Sequence[str], references: Sequence[Reference], normalise: Normalise) -> np.ndarray:
    """Return 1.0 where the tokens are those of any gold answer, else 0.0, [examples, 1].

    Two answers of which nothing is left, such as "the" and "", match.
    """
    return _best(predictions, references, normalise, lambda predicted, gold: float(predicted == gold))


def overlaps(predictions: Sequence[str], references: Sequence[Reference], normalise: Normalise) -> np.ndarray:
    """Return the best F1 between bags of tokens, 0 to 1, [examples, 1].

    It is 0 where either has no tokens left, so that a gold answer such as "the" scores 0 even against itself.
    """
    return _best(predictions, references, normalise, _overlap)


def _best(
    predictions: Sequence[str],
    references: Sequence[Reference],
    normalise: Normalise,
    score: Callable[[list[str], list[str]], float],
) -> np.ndarray:
    rows = []
    for prediction, reference in zip(predictions, references, strict=True):
        texts, language = _read(reference)
        assert texts, "a question without a gold answer cannot be scored"
        predicted = normalise(prediction, language)
        rows.append(max(score(predicted, normalise(text, language)) for text in texts))
    return np.array(rows, dtype=np.float64).reshape(-1, 1)


def _read(reference: Reference) -> tuple[Sequence[str], str]:
    if isinstance(reference, Mapping):
        return reference["texts"], reference["language"]
    assert not isinstance(reference, str), "gold answers are a list"
    return reference, ""


def _overlap(predicted: list[str], gold: list[str]) -> float:
    same = (Counter(predicted) & Counter(gold)).total()
    if not same:
        return 0.0
    precision, recall = same / len(predicted), same / len(gold)
    return 2 * precision * recall / (precision + recall)
