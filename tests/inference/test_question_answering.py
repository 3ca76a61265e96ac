"""question-answering: equal to what evaluation finds, over contexts of many windows."""

from pathlib import Path
from typing import Any

import pytest

from tests.inference.folders import saved
from xlmrxl_train import pipeline
from xlmrxl_train.errors import DataError
from xlmrxl_train.inference.base import Pipeline

CONTEXT = "hello world. how are you? fine, thanks. " * 12
ITEMS = [
    {"question": "how are you", "context": CONTEXT},
    {"question": "world?", "context": "hello world"},
    {"question": "are you fine", "context": "thanks, are you? " * 3},
]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Our pipeline, with short windows."""
    folder: Path = saved(tmp_path_factory.mktemp("qa"), "QuestionAnswering", initializer_range=0.4)
    return pipeline("question-answering", folder, device=-1, max_length=40, stride=12)


def test_answers_are_pieces_of_their_contexts(ours: Pipeline) -> None:
    answers = ours(ITEMS)
    for answer, item in zip(answers, ITEMS, strict=True):
        assert set(answer) == {"score", "start", "end", "answer"} and 0 < answer["score"] <= 1
        assert item["context"][answer["start"] : answer["end"]] == answer["answer"] != ""
    assert [ours(item) for item in ITEMS] == [
        {**answer, "score": pytest.approx(answer["score"], rel=1e-3)} for answer in answers
    ]
    first = ITEMS[0]
    assert ours(question=first["question"], context=first["context"])["answer"] == answers[0]["answer"]
    assert [answer["answer"] for answer in ours(question=["world?", "hello"], context="hello world")] == [
        answers[1]["answer"],
        ours(question="hello", context="hello world")["answer"],
    ]
    paired = ours(question=[item["question"] for item in ITEMS], context=[item["context"] for item in ITEMS])
    assert paired == answers


def test_several_answers_of_all_windows(ours: Pipeline) -> None:
    best = ours(ITEMS[0], top_k=30)
    assert 1 < len(best) <= 30
    assert [answer["score"] for answer in best] == sorted((answer["score"] for answer in best), reverse=True)
    assert sum(answer["score"] for answer in best) == pytest.approx(1)
    short = ours(ITEMS[0], max_answer_length=1, top_k=5)
    assert all(len(answer["answer"].split()) <= 1 for answer in short)


def test_a_book_is_read_in_several_batches(ours: Pipeline) -> None:
    item = {"question": "world?", "context": "hello world. how are you, fine thanks! " * 30}
    whole, sizes = ours(item), []
    hook = ours.model.register_forward_pre_hook(
        lambda _, __, words: sizes.append(len(words["input_ids"])), with_kwargs=True
    )
    parts = ours(item, tokens_per_batch=100)
    hook.remove()
    assert len(sizes) > 3 and max(sizes) <= 100
    assert parts == {**whole, "score": pytest.approx(whole["score"], rel=1e-4)}


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (
            "how are you",
            r'input 2: question-answering must have {"question": \.\.\., "context": \.\.\.}, got \'how are',
        ),
        ({"question": "how", "context": " "}, "input 2: question-answering must have a text for context, got ' '"),
        ({"question": "how " * 40, "context": "hello"}, "has 40 tokens, so that of max_length = .* lower stride, or"),
    ],
)
def test_a_wrong_input_is_named_and_takes_no_other_with_it(item: Any, message: str, ours: Pipeline) -> None:
    with pytest.raises(DataError, match=message):
        ours([ITEMS[1], item])
    from xlmrxl_train.inference.streaming import Input

    outcomes = list(ours.outcomes([Input(where="one", value=value) for value in (ITEMS[1], item, ITEMS[2])]))
    assert [outcome.fault is None for outcome in outcomes] == [True, False, True]
    assert outcomes[2].result["answer"]
