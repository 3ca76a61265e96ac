"""torchao's AdamW, whose moments of matrices take a byte per element and a float32 scale per 256 of them."""

from collections.abc import Callable
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torchao.optim import AdamW8bit
from torchao.optim.adam import single_param_adam
from torchao.optim.subclass_8bit import OptimState8bit

from xlmrxl_train.parallel.moments import local, moments_in

BLOCK = 256  # elements that share a scale
MIN_ROWS = 1024


class RowwiseAdamW8bit(AdamW8bit):  # type: ignore[misc]
    """Blocks never reach over a row's end, so that moments are the same tensors however rows are divided over ranks.

    torchao decides by the size of this rank's part. Here it is all matrices of at least 1,024 rows of whole blocks, as
    those of XL's layers and its embedding are; the moments of all else are float32.
    """

    def _new_buffer(self, p: torch.Tensor, signed: bool) -> torch.Tensor:
        if p.dim() != 2 or len(p) < MIN_ROWS or p.shape[1] % BLOCK or _leaves_a_rank_empty(p):
            return torch.zeros_like(p)
        moment: torch.Tensor = OptimState8bit.zeros(local(p).shape, signed, BLOCK, p.device, dtype=p.dtype)
        if isinstance(p, DTensor):
            moment = DTensor.from_local(moment, p.device_mesh, p.placements, shape=p.shape, stride=p.stride())
        return moment

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Do as torchao's does, but with this rank's rows alone.

        What torch compiles of DTensors moved weights by a percent more or less than the same code uncompiled.
        """
        update: Callable[..., None] = torch.compile(single_param_adam, fullgraph=True, dynamic=False)
        with torch._dynamo.utils.disable_cache_limit():  # one graph for each shape and decay, however many there are
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is None or not len(rows := local(parameter.detach())):
                        continue
                    moments_in(self, parameter)
                    state = self.state[parameter]
                    state["step"] += 1
                    update(
                        rows, local(parameter.grad), state["step"],
                        local(state["exp_avg"]), local(state["exp_avg_sq"]), None,
                        group["lr"], *group["betas"], group["weight_decay"], group["eps"], True, False,
                    )  # fmt: skip


def _leaves_a_rank_empty(p: torch.Tensor) -> bool:
    """Whether some rank has no row, as may be when there are more ranks than the root of the number of rows."""
    ranks = p.device_mesh["shard"].size() if isinstance(p, DTensor) else 1
    return (ranks - 1) * -(-len(p) // ranks) >= len(p)


def make_adamw_8bit(groups: list[dict[str, object]], **options: Any) -> torch.optim.Optimizer:
    """Return it for groups of parameters."""
    optimizer: torch.optim.Optimizer = RowwiseAdamW8bit(groups, block_size=BLOCK, **options)
    return optimizer
