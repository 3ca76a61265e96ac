"""What is planned for a micro-batch is what a real one takes, to the byte where nothing random is drawn."""

from contextlib import nullcontext
from dataclasses import dataclass, replace

import pytest
import torch

from tests.plan.measuring import SavedTensors
from xlmrxl_train.model import XLMRobertaXLConfig, XLMRobertaXLForMaskedLM, XLMRobertaXLForSequenceClassification
from xlmrxl_train.model.encoder import XLMRobertaXLEncoder
from xlmrxl_train.model.packed import PackedSequences
from xlmrxl_train.parallel.strategy import autocast
from xlmrxl_train.plan.footprint import CPU, Setting, _run, _watch_embeddings, footprint
from xlmrxl_train.plan.live import LiveTensors

MIXED = [64] * 4 + [30] * 8 + [12] * 16
SHORT = [9] * 60


@dataclass(frozen=True, kw_only=True)
class Shape:
    layers: int = 3
    hidden: int = 128
    heads: int = 4
    vocabulary: int = 500
    dropout: float = 0.1
    masked: bool = False

    def model(self, device: str, setting: Setting) -> torch.nn.Module:
        kind = XLMRobertaXLForMaskedLM if self.masked else XLMRobertaXLForSequenceClassification
        with torch.device(device):
            model = kind(
                XLMRobertaXLConfig(
                    vocab_size=self.vocabulary, hidden_size=self.hidden, num_hidden_layers=self.layers,
                    num_attention_heads=self.heads, intermediate_size=4 * self.hidden, num_labels=3,
                    hidden_dropout_prob=self.dropout, attention_probs_dropout_prob=self.dropout,
                )
            ).train()  # fmt: skip
        for module in model.modules():
            if isinstance(module, XLMRobertaXLEncoder):
                module.recompute = setting.recompute
        return model.bfloat16() if setting.divided and setting.precision == "bf16" else model

    def inputs(self, lengths: list[int]) -> dict[str, object]:
        tokens = sum(lengths)
        given = {
            "input_ids": torch.full((tokens,), 5),
            "position_ids": torch.full((tokens,), 5),
            "sequences": PackedSequences.from_lengths(lengths),
        }
        if not self.masked:
            return given | {"labels": torch.zeros(len(lengths), dtype=torch.int64)}
        labels = torch.full((tokens,), -100)
        labels[::7] = 5
        return given | {"labels": labels, "rows": (labels != -100).nonzero().squeeze(1)}


def forward(model: torch.nn.Module, inputs: dict[str, object], setting: Setting) -> torch.Tensor:
    with nullcontext() if setting.divided else autocast(setting.precision, CPU):
        return model(**inputs).loss_sum


CASES = {
    "bf16": (Shape(), Setting(), MIXED),
    "fp32": (Shape(), Setting(precision="fp32"), MIXED),
    "without dropout": (Shape(dropout=0.0), Setting(), MIXED),
    "short": (Shape(), Setting(), SHORT),
    "divided": (Shape(hidden=192, heads=3), Setting(divided=True), MIXED),
    "divided, fp32, full": (Shape(layers=5), Setting(precision="fp32", divided=True, recompute="full"), MIXED),
    "full": (Shape(layers=7), Setting(recompute="full"), MIXED),
    "every_2 of 6": (Shape(layers=6), Setting(recompute="every_2"), MIXED),
    "every_3 of 7": (Shape(layers=7), Setting(recompute="every_3"), SHORT),
    "deep": (Shape(layers=8), Setting(), SHORT),
    "masked": (Shape(masked=True, vocabulary=3000), Setting(), MIXED),
    "masked, fp32": (Shape(masked=True, vocabulary=3000), Setting(precision="fp32", recompute="full"), SHORT),
}


@pytest.mark.parametrize(("shape", "setting", "lengths"), CASES.values(), ids=CASES)
def test_what_autograd_saves(shape: Shape, setting: Setting, lengths: list[int]) -> None:
    model, inputs = shape.model("cpu", setting), shape.inputs(lengths)
    with SavedTensors(model) as saved:
        forward(model, inputs, setting)
    planned = footprint(shape.model("meta", setting), inputs, setting).kept
    assert planned == pytest.approx(saved.bytes, rel=0.02)


@pytest.mark.parametrize("recompute", ["none", "full", "every_2", "selective"])
@pytest.mark.parametrize("divided", [False, True])
def test_the_most_at_once(recompute: str, divided: bool) -> None:
    shape, setting = Shape(layers=6), Setting(recompute=recompute, divided=divided)
    model, inputs = shape.model("cpu", setting), shape.inputs(MIXED)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    known = [*model.parameters(), *(parameter.grad for parameter in model.parameters())]
    with LiveTensors(known) as live:
        peaks = _watch_embeddings(model, live)
        loss_sum = forward(model, inputs, setting)
        kept, at_forward = live.alive, live.begin_anew()
        loss_sum.backward()
    planned = footprint(shape.model("meta", setting), inputs, setting)
    assert planned.kept == pytest.approx(kept, rel=0.01)
    assert planned.forward == pytest.approx(at_forward, rel=0.01)
    assert planned.backward == pytest.approx(peaks[-1], rel=0.01)
    assert planned.end == pytest.approx(live.peak, rel=0.01)


def test_two_layers_of_the_real_width() -> None:
    shape, setting = Shape(layers=2, hidden=2560, heads=32, vocabulary=64), Setting()
    model, inputs = shape.model("cpu", setting), shape.inputs([40, 30, 30, 20])
    with SavedTensors(model) as saved:
        forward(model, inputs, setting)
    assert footprint(shape.model("meta", setting), inputs, setting).kept == pytest.approx(saved.bytes, rel=0.01)


@pytest.mark.parametrize("recompute", ["none", "full", "every_3", "selective"])
def test_layers_are_alike(recompute: str) -> None:
    """Two depths say what eleven layers take."""
    shape, setting = Shape(layers=11), Setting(recompute=recompute)
    inputs, outline = shape.inputs(SHORT), shape.model("meta", setting)
    all_of_them, planned = _run(outline, 11, inputs, setting), footprint(outline, inputs, setting)
    for name in ("kept", "forward", "backward", "end", "flops"):
        assert getattr(planned, name) == pytest.approx(getattr(all_of_them, name), rel=1e-3), name


def test_frozen_layers_keep_nothing() -> None:
    shape, inputs = Shape(layers=5), Shape().inputs(MIXED)
    outline = shape.model("meta", Setting())
    whole = footprint(outline, inputs, Setting())
    for name, parameter in outline.named_parameters():
        parameter.requires_grad_("layer.4." in name or name.startswith("classifier"))
    last = footprint(outline, inputs, Setting())
    assert last.kept < 0.3 * whole.kept and last.flops < 0.5 * whole.flops


def test_matrix_products_are_counted() -> None:
    """6 per weight and token: forward and backward; the last layer does most of it for first tokens alone."""
    shape, inputs = Shape(layers=6, dropout=0.0), Shape().inputs(MIXED)
    weights, tokens = 5 * 12 * shape.hidden**2, sum(MIXED)
    flops = footprint(shape.model("meta", Setting()), inputs, Setting()).flops
    assert 6 * weights * tokens < flops < 1.25 * 6 * weights * tokens
    again = footprint(shape.model("meta", Setting()), inputs, Setting(recompute="full")).flops
    assert again == pytest.approx(flops * 4 / 3, rel=0.08)


def test_cuda_keeps_a_byte_where_dropout_fell_and_no_probabilities_without_it() -> None:
    inputs = Shape().inputs(MIXED)
    for dropout in (0.1, 0.0):
        outline = Shape(dropout=dropout).model("meta", Setting())
        grouped = Setting(attention="grouped")
        cpu, cuda = (footprint(outline, inputs, replace(grouped, cuda=cuda)) for cuda in (False, True))
        without_probabilities = footprint(outline, inputs, Setting(cuda=True))
        assert without_probabilities.kept < cuda.kept
        if dropout:
            tokens, hidden = sum(MIXED), Shape().hidden
            # Embedding 4 bytes, two layers 2 bytes per element before; the last layer has first tokens alone.
            less = tokens * hidden * (3 + 2) + len(MIXED) * hidden * (1 + 3 + 1)
            assert cpu.kept - cuda.kept == pytest.approx(less, rel=0.05)
