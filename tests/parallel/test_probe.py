"""Whether an optimizer step changed a weight, however often an engine calls the optimizer."""

import pytest
import torch

from xlmrxl_train.parallel.probe import OptimizerWatch


@pytest.mark.parametrize(("lr", "unchanged"), [(0.1, False), (0.0, True)])
def test_steps_of_parts_are_seen_together(lr: float, unchanged: bool) -> None:
    parts = [torch.nn.Parameter(torch.ones(5)) for _ in range(2)]
    optimizer = torch.optim.SGD(parts, lr=lr)
    watch = OptimizerWatch(optimizer)
    for part, gradient in zip(parts, (1.0, 0.0), strict=True):  # as ZeRO-3 does; the second part stays as it is
        optimizer.param_groups[0]["params"] = [part]
        part.grad = torch.full((5,), gradient)
        optimizer.step()
    assert watch.unchanged is unchanged
    watch.reset()
    assert watch.unchanged  # until it is called again: an engine may leave that out without a word
