"""multiple-choice: equal to transformers' model, with any number of choices side by side."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.inference.folders import saved
from xlmrxl_train import pipeline
from xlmrxl_train.errors import ConfigError, DataError

ITEMS: list[dict[str, Any]] = [
    {"context": "hello world", "question": "how are you", "choices": ["fine", "thanks, fine", "world"]},
    {"question": "are you fine", "choices": ["hello", "fine thanks"]},
]


def test_scores_are_those_of_transformers(tmp_path: Path) -> None:
    folder = saved(tmp_path, "MultipleChoice", initializer_range=0.4)
    pipe = pipeline("multiple-choice", folder, device=-1)
    theirs = transformers.XLMRobertaXLForMultipleChoice.from_pretrained(folder).eval()
    for item, ranked in zip(ITEMS, pipe(ITEMS, top_k=None), strict=True):
        text = " ".join(item[role] for role in ("context", "question") if role in item)
        count = len(item["choices"])
        encoded = pipe.tokenizer([text] * count, item["choices"], padding=True, return_tensors="pt")
        with torch.no_grad():
            shares = theirs(**{name: values[None] for name, values in encoded.items()}).logits.softmax(-1)[0].tolist()
        assert sorted(choice["index"] for choice in ranked) == list(range(count))
        for choice in ranked:
            assert choice["score"] == pytest.approx(shares[choice["index"]], abs=1e-5)
            assert choice["choice"] == item["choices"][choice["index"]]
        assert pipe(item)["index"] == ranked[0]["index"] == max(range(count), key=shares.__getitem__)
    assert len(pipe(ITEMS[0], top_k=2)) == 2
    turned = pipe(ITEMS[0], templates={"text": "{question} {context}"})
    assert turned["score"] != pipe(ITEMS[0])["score"]
    with pytest.raises(ConfigError, match="top_k must be an integer of at least 1, got -1"):
        pipe(ITEMS[0], top_k=-1)

    for templates, message in (
        (5, r"templates must map text and text_pair to texts, got 5\. Mend it\."),
        ({"text": 5}, r"templates must map text and text_pair to texts, got {'text': 5}"),
        ({"text": "{other}"}, "dataset.templates.text must be text with {context} and {question}, each at most once"),
    ):
        with pytest.raises(ConfigError, match=message):
            pipe(ITEMS[0], templates=templates)
    with pytest.raises(DataError, match=r"input 1: dataset\.templates\.text must be text with {question}, each at"):
        pipe(ITEMS[1], templates={"text": "{context} {question}"})


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"choices": ["a", "b"]}, 'input 1: multiple-choice must have {"context": .*two choices or more, got'),
        ({"question": "how", "choices": ["a"]}, "two choices or more, got"),
        ({"question": "how", "choices": ["a", ""]}, "must have a text for each of the choices, got ''"),
        ({"context": 5, "choices": ["a", "b"]}, "multiple-choice must have a text for context, got 5"),
        (
            {"question": "how " * 90, "choices": ["a", "b"]},
            "input 1: question and choice must fit into max_length=64 tokens",
        ),
    ],
)
def test_a_wrong_input_is_named(item: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        pipeline("multiple-choice", saved(tmp_path, "MultipleChoice"), device=-1)(item)
