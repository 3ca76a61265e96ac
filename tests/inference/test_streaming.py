"""Inputs are sorted and packed inside; they leave in order, and a generator is read no further than needed."""

import gc
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.inference.folders import saved
from xlmrxl_train import pipeline
from xlmrxl_train.errors import DataError
from xlmrxl_train.inference.base import Pipeline
from xlmrxl_train.inference.streaming import Input
from xlmrxl_train.model.prepacking import PrepackableLinear


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """A classifier."""
    return pipeline("text-classification", saved(tmp_path_factory.mktemp("m"), "SequenceClassification"), device=-1)


def test_order_is_kept_whatever_is_sorted_and_packed(ours: Pipeline) -> None:
    texts = ["hello " * (1 + 7 * number % 13) + "abcxyz"[number % 6] for number in range(60)]
    alone = [ours([text])[0] for text in texts]
    for options in ({}, {"window": 7}, {"tokens_per_batch": 20}, {"tokens_per_batch": 1}):
        for one, other in zip(ours(texts, **options), alone, strict=True):
            assert one == {**other, "score": pytest.approx(other["score"], abs=1e-5)}
    assert list(ours(iter(texts))) == ours(texts)


def test_a_generator_is_read_a_window_at_a_time(ours: Pipeline) -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "hello world"

    answers = ours(endless(), window=10)
    assert read == 0
    next(answers)
    assert read == 10
    for _ in range(10):
        next(answers)
    assert read == 20
    gc.collect()
    held = len(gc.get_objects())
    for _ in range(300):
        next(answers)
    gc.collect()
    assert len(gc.get_objects()) < held + 500


def test_a_fault_is_an_outcome_like_others(ours: Pipeline) -> None:
    inputs = [Input(where=f"f:{number}", value=value) for number, value in enumerate(["how", "", "are " * 99, "you"])]
    outcomes = list(ours.outcomes(inputs))
    assert [outcome.input for outcome in outcomes] == inputs
    assert [str(outcome.fault).partition(" ")[0] for outcome in outcomes if outcome.fault] == ["f:1:", "f:2:"]
    assert [outcome.result is None for outcome in outcomes] == [False, True, True, False]
    assert all(isinstance(outcome.fault, DataError) for outcome in outcomes[1:3])


def test_a_terminal_sees_how_many_are_done(
    ours: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(list(ours(iter(["how"] * 3)))) == 3
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    for answer in ours(iter(["how"] * 3)):
        print(answer["label"])
    said = capsys.readouterr()
    assert re.search(r"text-classification\S*  3  0:\d\d\n$", said.err)
    assert len(said.out.splitlines()) == 3


def test_copies_of_weights_last_as_long_as_the_pipeline(tmp_path: Path) -> None:
    pipe = pipeline("text-classification", saved(tmp_path, "SequenceClassification"), device=-1, dtype="bfloat16")
    layers = [module for module in pipe.model.modules() if isinstance(module, PrepackableLinear)]
    if not any(layer.may_prepack for layer in layers):
        pytest.skip("oneDNN computes no bfloat16 here")
    pipe("hello")
    copies = [layer._prepacked for layer in layers]
    assert any(copies)
    pipe("hello world")
    assert [layer._prepacked for layer in layers] == copies
    del pipe
    gc.collect()
    assert not any(layer._prepacked or layer.may_prepack for layer in layers)
