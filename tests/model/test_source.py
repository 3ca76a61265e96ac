"""New weights: every process that draws a part of a tensor gets that part of the one tensor."""

import pytest
import torch

from xlmrxl_train.model import XLMRobertaXLConfig, XLMRobertaXLModel, source
from xlmrxl_train.model.source import ParameterSource

WORDS = "embeddings.word_embeddings.weight"
SIZES = {
    "vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 40,
}  # fmt: skip


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> ParameterSource:
    """1,200 elements of words in 12 blocks."""
    monkeypatch.setattr(source, "BLOCK", 100)
    with torch.device("meta"):
        model = XLMRobertaXLModel(XLMRobertaXLConfig(**SIZES))
    return model.source(None, seed=3)


def whole(drawn: ParameterSource, name: str) -> torch.Tensor:
    return drawn.values(name, 0, torch.Size(drawn.new[name].shape).numel())


@pytest.mark.parametrize("start, count", [
    (0, 1200), (0, 1), (99, 1), (99, 2), (100, 100), (37, 611), (30, 40), (1100, 100), (1199, 1), (600, 0), (1200, 0),
])  # fmt: skip
def test_an_interval_is_a_slice_of_the_whole(drawn: ParameterSource, start: int, count: int) -> None:
    values = whole(drawn, WORDS)
    assert torch.equal(drawn.values(WORDS, start, count), values[start : start + count])
    for dtype in (torch.float32, torch.bfloat16):
        target = torch.empty(count, dtype=dtype)
        drawn.fill(target, WORDS, start)
        assert torch.equal(target, values[start : start + count].to(dtype))


def test_only_the_blocks_of_an_interval_are_drawn(drawn: ParameterSource, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    block = source.NewParameter._block
    monkeypatch.setattr(
        source.NewParameter, "_block", lambda self, number, seed: (seen.append(number), block(self, number, seed))[1]
    )
    drawn.fill(torch.empty(350), WORDS, 450)
    assert seen == [4, 5, 6, 7]


def test_blocks_differ_and_padding_is_zero(drawn: ParameterSource) -> None:
    values = whole(drawn, WORDS)
    assert not values.view(50, 24)[1].any()
    others = torch.cat([values[:24], values[48:]])
    assert others.unique().numel() > 1170 and float(others.std()) == pytest.approx(0.02, rel=0.1)


def test_names_and_seeds_make_other_numbers(drawn: ParameterSource) -> None:
    query, key = (whole(drawn, f"encoder.layer.0.attention.self.{name}.weight") for name in ("query", "key"))
    assert not torch.equal(query, key)
    drawn.seed = 4
    assert not torch.equal(query, whole(drawn, "encoder.layer.0.attention.self.query.weight"))
