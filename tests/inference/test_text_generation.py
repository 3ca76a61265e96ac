"""text-generation: with and without cache, against transformers' model, greedy and drawn."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.inference.folders import UNUSED_ROWS, saved
from xlmrxl_train import pipeline
from xlmrxl_train.errors import ConfigError, DataError
from xlmrxl_train.inference.base import Pipeline

PROMPTS = ["hello world", "how are you fine thanks", "are", "hello, you"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal model."""
    return saved(tmp_path_factory.mktemp("clm"), "CausalLM", initializer_range=0.3)


@pytest.fixture(scope="module")
def ours(folder: Path) -> Pipeline:
    """Our pipeline."""
    return pipeline("text-generation", folder, device=-1)


def never(ours: Pipeline) -> list[int]:
    """Return the tokens that are never said."""
    tokens = len(ours.tokenizer)
    return [0, 1, ours.tokenizer.mask_token_id, *range(tokens, tokens + UNUSED_ROWS)]


def test_greedy_texts_are_those_of_transformers(ours: Pipeline, folder: Path) -> None:
    theirs = transformers.XLMRobertaXLForCausalLM.from_pretrained(folder).eval()
    texts = []
    for prompt in PROMPTS:
        ids = ours.tokenizer.encode(prompt)[:-1]
        while len(ids) < 25 and ids[-1] != ours.tokenizer.eos_token_id:
            with torch.no_grad():
                logits = theirs(torch.tensor([ids]), use_cache=False).logits[0, -1]
            logits[never(ours)] = -torch.inf
            ids.append(int(logits.argmax()))
        texts.append(ours.tokenizer.decode(ids, skip_special_tokens=True))
    for options in ({}, {"use_cache": False}, {"tokens_per_batch": 1}):
        for prompt, text, answer in zip(PROMPTS, texts, ours(PROMPTS, max_new_tokens=25, **options), strict=True):
            assert len(answer) == 1
            written = answer[0]["generated_text"]
            assert written.startswith(prompt) and len(written) > len(prompt) and len(text) > len(prompt)
            assert written.startswith(text) or text.startswith(written)
    assert ours(PROMPTS[0]) == ours(PROMPTS)[0]
    rest = ours(PROMPTS[0], return_full_text=False)[0]["generated_text"]
    assert PROMPTS[0] + rest == ours(PROMPTS[0])[0]["generated_text"]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_generate_of_transformers_says_the_same(prompt: str, ours: Pipeline, folder: Path) -> None:
    """Where it is told the positions, which this model counts from 2: by itself it counts them from 0."""
    theirs = transformers.XLMRobertaXLForCausalLM.from_pretrained(folder).eval()
    ids = torch.tensor([ours.tokenizer.encode(prompt)[:-1]])
    said = theirs.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, suppress_tokens=never(ours),
        pad_token_id=1, eos_token_id=2, position_ids=torch.arange(2, 2 + ids.shape[1])[None],
    )  # fmt: skip
    text = ours.tokenizer.decode(said[0], skip_special_tokens=True)
    assert ours(prompt, max_new_tokens=12)[0]["generated_text"] == text


def test_positions_count_on_to_the_models_last(ours: Pipeline) -> None:
    longest = ours("hello", max_new_tokens=500, return_full_text=False)[0]["generated_text"]
    again = ours("hello", max_new_tokens=500, return_full_text=False, use_cache=False)[0]["generated_text"]
    assert longest == again
    with pytest.raises(DataError, match="input 1: text-generation must have at most 64 tokens, special ones included"):
        ours("hello " * 70)
    assert ours("hello " * 70, truncation=True, return_full_text=False)


def test_drawn_texts_depend_on_seed_and_prompt_alone(ours: Pipeline) -> None:
    options: dict[str, Any] = {"do_sample": True, "temperature": 2.0, "top_k": None}
    several = ours(PROMPTS, seed=1, num_return_sequences=3, **options)
    assert [len(texts) for texts in several] == [3] * 4
    assert ours(PROMPTS[2], seed=1, num_return_sequences=3, **options) == several[2]
    assert ours(PROMPTS[2], seed=1, num_return_sequences=3, use_cache=False, **options) == several[2]
    lengths = {len(ours.tokenizer.encode(text["generated_text"])) for texts in several for text in texts}
    assert len(lengths) > 3  # texts end one after the other
    assert len({text["generated_text"] for text in several[2]}) == 3
    assert ours(PROMPTS, seed=2, **options) != ours(PROMPTS, seed=1, **options)
    assert ours(PROMPTS, **options) != ours(PROMPTS, **options)
    assert ours(PROMPTS, seed=1, do_sample=True, top_k=1) == ours(PROMPTS)
    assert ours(PROMPTS, seed=1, do_sample=True, top_p=1e-9) == ours(PROMPTS)
    assert ours(PROMPTS, seed=1, do_sample=True, temperature=1e-40) == ours(PROMPTS)


def test_tokens_are_drawn_as_often_as_they_are_probable(ours: Pipeline) -> None:
    ids = torch.tensor([ours.tokenizer.encode("hello")[:-1]])
    with torch.no_grad():
        logits = ours.model(ids).logits[0, -1] / 1.5
    logits[never(ours)] = -torch.inf
    shares, tokens = logits.softmax(-1).topk(4)
    kept = int((shares.cumsum(0) - shares < 0.9).sum())
    shares = shares[:kept] / shares[:kept].sum()
    drawn = Counter(
        text["generated_text"]
        for text in ours(
            "hello", do_sample=True, temperature=1.5, top_k=4, top_p=0.9, seed=3, max_new_tokens=1,
            num_return_sequences=600, return_full_text=False,
        )
    )  # fmt: skip
    wanted: Counter[str] = Counter()
    for share, token in zip(shares.tolist(), tokens.tolist(), strict=False):
        text = ours.tokenizer.decode([int(ids[0, 1]), token], skip_special_tokens=True)
        wanted[text.removeprefix("hello")] += share  # type: ignore[assignment]
    assert set(drawn) <= set(wanted)
    for text, share in wanted.items():
        assert drawn[text] / 600 == pytest.approx(share, abs=0.09)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0}, r"temperature must be a number above 0, got 0\. Set do_sample=False for the most"),
        ({"top_p": 1.5}, r"top_p must be a number above 0 and at most 1, got 1\.5\. Leave it out for 1\."),
        ({"num_return_sequences": 2}, "num_return_sequences must be 1 without do_sample, got 2: all texts would"),
        ({"max_new_tokens": 0}, "max_new_tokens must be an integer of at least 1, got 0"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], message: str, ours: Pipeline) -> None:
    with pytest.raises(ConfigError, match=message):
        ours("hello", **options)


def test_a_model_must_see_what_the_task_needs(folder: Path, tmp_path: Path) -> None:
    masked = saved(tmp_path, "MaskedLM")
    with pytest.raises(ConfigError, match=r"model must have is_decoder true in its config\.json for text-generation, "):
        pipeline("text-generation", masked, device=-1)
    with pytest.raises(ConfigError, match=r"whose tokens do not see later ones\. Use text-generation, or another"):
        pipeline("fill-mask", folder, device=-1)
