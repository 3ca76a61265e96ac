"""Some rows of a table trained, the others frozen: the same words and gradients as of one table, or an error."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.model.reference import configuration
from xlmrxl_train.model import XLMRobertaXLModel, source
from xlmrxl_train.model.active_embedding import ActiveEmbedding
from xlmrxl_train.model.layers import Embedding
from xlmrxl_train.model.weights import SafetensorsReader

ROWS = torch.tensor([0, 2, 3, 7, 40, 41, 96])
WORDS = "embeddings.word_embeddings"


def divided(whole: Embedding, rows: Tensor) -> ActiveEmbedding:
    """Return the same table in two parts."""
    table = ActiveEmbedding(whole, rows)
    with torch.no_grad():
        table.active.weight.copy_(whole.weight[rows])
        table.frozen.weight.copy_(whole.weight[table.other_rows])
    return table


def table(size: int = 97) -> Embedding:
    torch.manual_seed(0)
    whole = Embedding(size, 8, padding_idx=1)
    torch.nn.init.normal_(whole.weight)
    return whole


def test_words_are_those_of_one_table() -> None:
    whole = table()
    parts = divided(whole, ROWS)
    ids = torch.arange(97).flip(0)
    assert torch.equal(parts.eval()(ids), whole(ids))
    assert torch.equal(parts.train()(ROWS), whole(ROWS))
    assert [name for name, parameter in parts.named_parameters() if parameter.requires_grad] == ["active.weight"]
    assert not list(parts.buffers())


def test_frozen_words_take_the_dtype_of_the_others() -> None:
    whole = table()
    whole.weight.data = whole.weight.data.bfloat16().float()
    parts = divided(whole, ROWS).eval()
    parts.frozen.bfloat16()
    assert torch.equal(parts(torch.arange(97)), whole(torch.arange(97)))


@pytest.mark.parametrize("rows", [ROWS, torch.tensor([0, 1, 2, 5])], ids=["padding frozen", "padding trained"])
def test_gradients_are_those_of_one_table(rows: Tensor) -> None:
    whole = table()
    parts = divided(whole, rows).train()
    ids = rows[torch.tensor([3, 1, 1, 0, 2, 3, 3])]
    scale = torch.randn(7, 8)
    (whole(ids) * scale).sum().backward()
    (parts(ids) * scale).sum().backward()
    assert torch.equal(parts.active.weight.grad, whole.weight.grad[rows])
    assert parts.active.weight.grad.any() and parts.frozen.weight.grad is None
    if 1 in rows:
        assert not parts.active.weight.grad[1].any()


@pytest.mark.parametrize("token", [1, 50, 95, 97, -1])
def test_a_token_that_is_not_trained_is_no_other_word(token: int) -> None:
    parts = divided(table(), ROWS).train()
    with pytest.raises(IndexError, match="out of range"):
        parts(torch.tensor([0, token, 2]))


@pytest.mark.parametrize("kind", ["drawn", "file"])
def test_each_part_is_read_from_its_rows(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in intervals that begin within a row, and in pieces smaller than the distance between rows."""
    monkeypatch.setattr(source, "BLOCK", 100)
    with torch.device("meta"):
        model = XLMRobertaXLModel(configuration(), add_pooling_layer=False)
    values = model.source(None, seed=3)
    if kind == "file":
        names = [name for name, _ in model.named_parameters()]
        save_file({n: torch.randn(model.get_parameter(n).shape).bfloat16() for n in names}, tmp_path / "x.safetensors")
        reader = SafetensorsReader([tmp_path / "x.safetensors"])
        values = source.ParameterSource(model, 0.1, 3, reader, dict(zip(names, names, strict=True)))
    whole = values.values(f"{WORDS}.weight", 0, 97 * 32).view(97, 32)
    model.embeddings.word_embeddings = parts = ActiveEmbedding(model.embeddings.word_embeddings, ROWS)
    values.divide(f"{WORDS}.weight", {f"{WORDS}.active.weight": ROWS, f"{WORDS}.frozen.weight": parts.other_rows})
    for name, rows in (("active", ROWS), ("frozen", parts.other_rows)):
        flat = whole[rows].flatten()
        for start, end in ((0, len(flat)), (0, 0), (5, 6), (31, 33), (64, 96), (40, 200), (len(flat) - 3, len(flat))):
            target = torch.empty(end - start)
            values.fill(target, f"{WORDS}.{name}.weight", start)
            assert torch.equal(target, flat[start:end].float()), (name, start, end)
        assert values.dtype_of(f"{WORDS}.{name}.weight") == (torch.bfloat16 if kind == "file" else torch.float32)


def test_nothing_beyond_the_rows_of_an_interval_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "BLOCK", 128)  # 4 rows
    with torch.device("meta"):
        model = XLMRobertaXLModel(configuration(), add_pooling_layer=False)
    values = model.source(None, seed=3)
    values.divide(f"{WORDS}.weight", {"part": ROWS})
    read: list[tuple[int, int]] = []
    original = source.NewParameter.values

    def noted(self: source.NewParameter, start: int, count: int, seed: int) -> Tensor:
        read.append((start // 32, count // 32))
        return original(self, start, count, seed)

    monkeypatch.setattr(source.NewParameter, "values", noted)
    values.fill(torch.empty(5 * 32), "part", 32)  # of rows 2 3 | 7 | 40 41
    assert [span for span in read if span[1]] == [(2, 2), (7, 1), (40, 2)]
