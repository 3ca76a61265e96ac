"""text-classification against transformers' pipeline on the same weights."""

from pathlib import Path
from typing import Any

import pytest
import transformers

from tests.inference.folders import saved
from xlmrxl_train import pipeline
from xlmrxl_train.errors import ConfigError, DataError

TEXTS = ["hello world", "are you fine, thanks?", "how"]
PAIR = {"text": "hello world", "text_pair": "how are you"}
PROBLEMS: dict[str, dict[str, object]] = {
    "classes": {"id2label": {0: "yes", 1: "maybe", 2: "no"}},
    "several": {"problem_type": "multi_label_classification"},
    "number": {"problem_type": "regression", "num_labels": 1},
    "one": {"num_labels": 1},
}


def same(mine: Any, theirs: Any) -> None:
    if isinstance(theirs, list):
        assert len(mine) == len(theirs)
        for one, other in zip(mine, theirs, strict=True):
            same(one, other)
        return
    assert mine == {"label": theirs["label"], "score": pytest.approx(theirs["score"], abs=1e-4)}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_it_answers_as_transformers_does(problem: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, "SequenceClassification", **PROBLEMS[problem])
    mine = pipeline("text-classification", folder, device=-1)
    theirs = transformers.pipeline("text-classification", model=str(folder), device=-1)
    for inputs in (TEXTS[0], TEXTS, [TEXTS[0]], PAIR, [PAIR, PAIR], [TEXTS[1], PAIR]):
        for options in ({}, {"top_k": None}, {"top_k": 2}, {"top_k": 1}, {"function_to_apply": "none"}):
            same(mine(inputs, **options), theirs(inputs, **options))


def test_long_texts(tmp_path: Path) -> None:
    folder = saved(tmp_path, "SequenceClassification")
    mine = pipeline("sentiment-analysis", folder, device="cpu")
    long = {"text": "hello " * 90, "text_pair": "world " * 10}
    with pytest.raises(DataError, match=r"input 2: text-classification must have at most 64 tokens, .* got 104\."):
        mine([PAIR, long])
    theirs = transformers.pipeline("text-classification", model=str(folder), device=-1)
    same(mine(long, truncation=True), theirs(long, truncation=True, max_length=64))
    same(mine(TEXTS, truncation=True, max_length=5), theirs(TEXTS, truncation=True, max_length=5))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"text": 5}, r"input 1: text-classification must have a text for text, got 5\. Mend"),
        ({"text": "a", "text_pair": ""}, "input 1: text-classification must have a text for text_pair, got ''"),
        (
            {"premise": "a"},
            r'must have a text or {"text": \.\.\., "text_pair": \.\.\.}, got {\'premise\': \'a\'}',
        ),
        ([["a", "b"]], "input 1: text-classification must have a text or"),
    ],
)
def test_a_wrong_input_is_named(value: Any, message: str, tmp_path: Path) -> None:
    mine = pipeline("text-classification", saved(tmp_path, "SequenceClassification"), device=-1)
    with pytest.raises(DataError, match=message):
        mine(value)
    with pytest.raises(ConfigError, match=r"function_to_apply must be sigmoid \| softmax \| none, got 'tanh'\. Choose"):
        mine("a", function_to_apply="tanh")
