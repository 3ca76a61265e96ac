"""Compiled pieces of layers: the same numbers, and the same graphs for all layers and batches."""

import random

import pytest
import torch
from torch._dynamo.utils import counters

from tests.model.reference import configuration, randomize
from xlmrxl_train.model import PackedSequences, XLMRobertaXLForSequenceClassification
from xlmrxl_train.model.encoder import XLMRobertaXLLayer

BATCHES = 8


def gradients(recompute: str, *, compiled: bool) -> list[torch.Tensor]:
    """Return losses and gradients of batches whose numbers of sequences, tokens and groups all differ."""
    torch.manual_seed(0)
    draw = random.Random(0)
    model = XLMRobertaXLForSequenceClassification(configuration("odd")).train()
    randomize(model)
    model.roberta.encoder.recompute = recompute
    for module in model.modules():
        if compiled and isinstance(module, XLMRobertaXLLayer):
            module.compile_for_training()
    found = []
    for size in range(2, 2 + BATCHES):
        lengths = [draw.randint(1, 50) for _ in range(size)]
        ids = torch.randint(4, 90, (sum(lengths),))
        output = model(input_ids=ids, sequences=PackedSequences.from_lengths(lengths), labels=torch.arange(size) % 3)
        output.loss_sum.backward()
        found.append(output.loss_sum.detach())
    model.eval()(input_ids=ids, sequences=PackedSequences.from_lengths(lengths))  # evaluation compiles nothing
    return [*found, *(parameter.grad for parameter in model.parameters() if parameter.grad is not None)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch looks at it, and hides this warning by a filter
@pytest.mark.parametrize("recompute", ["none", "full"])
def test_few_graphs_give_the_same_numbers(recompute: str) -> None:
    torch.compiler.reset()
    counters.clear()
    expected, got = (gradients(recompute, compiled=compiled) for compiled in (False, True))
    assert counters["stats"]["unique_graphs"] == 5  # two of them of the last layer, for first tokens alone
    assert not counters["graph_break"]
    for theirs, ours in zip(expected, got, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
