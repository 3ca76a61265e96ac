"""A whole copy of the model in every process; gradients are averaged while backward runs.

The loss that the loop hands over is already scaled by the world's size over the global number of targets, so that the
average of gradients is the gradient of the mean over all targets.
"""

from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch.nn.parallel import DistributedDataParallel

from xlmrxl_train.parallel.blueprint import Blueprint
from xlmrxl_train.parallel.single import SingleStrategy
from xlmrxl_train.parallel.world import World


class DDPStrategy(SingleStrategy):
    """`SingleStrategy` behind accelerate's DistributedDataParallel."""

    def __init__(
        self, world: World, blueprint: Blueprint, precision: str, max_grad_norm: float, bucket_mb: float
    ) -> None:
        super().__init__(world, blueprint, precision, max_grad_norm)
        # The precision policy is ours: accelerate's would wrap forward and return float32 copies of every output.
        self.accelerator = Accelerator(
            cpu=world.device.type == "cpu",
            mixed_precision="no",
            kwargs_handlers=[DistributedDataParallelKwargs(bucket_cap_mb=bucket_mb, gradient_as_bucket_view=True)],
        )
        assert self.accelerator.num_processes == world.size, "accelerate sees another world than the launcher's"
        self.root = self.accelerator.prepare_model(self.model)
        if isinstance(self.root, DistributedDataParallel):
            world.before_leaving(self._let_go)

    def accumulate(self, inputs: dict[str, Any], scale: torch.Tensor, *, last: bool) -> torch.Tensor:
        """Add gradients; those of the last micro-batch start the reduction of the step's sum."""
        with nullcontext() if last else self.accelerator.no_sync(self.root):
            return super().accumulate(inputs, scale, last=last)

    def _let_go(self) -> None:
        """Drop the process group: the reducer would free it while it holds Python's lock."""
        del self.root.reducer, self.root.logger, self.root.process_group
