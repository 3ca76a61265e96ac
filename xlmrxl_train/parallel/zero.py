"""DeepSpeed's ZeRO, called directly: stage 1 divides moments and float32 weights, 2 gradients, 3 parameters.

accelerate's wrapper is not used: it steps the optimizer inside backward, and on CPU ranks it trains every rank alone.
"""

import logging
import os
import warnings
from typing import Any

import torch

from xlmrxl_train.config import Zero3Config, Zero3NvmeConfig, ZeroConfig
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.parallel.blueprint import Blueprint
from xlmrxl_train.parallel.probe import Probe
from xlmrxl_train.parallel.strategy import StepResult, forward_dtype, scaled
from xlmrxl_train.parallel.tensor_slice import TensorSlice
from xlmrxl_train.parallel.world import World
from xlmrxl_train.parallel.zero_partition import Partition, make_partition
from xlmrxl_train.parallel.zero_settings import deepspeed_settings
from xlmrxl_train.progress import progress


class ZeroStrategy:
    """An engine of DeepSpeed."""

    whole = False  # bf16 ones under stages 1 and 2

    def __init__(
        self, world: World, blueprint: Blueprint, precision: str, max_grad_norm: float, config: ZeroConfig,
        *, recompute: bool,
    ) -> None:  # fmt: skip
        """Give the model memory, divided as it comes under stage 3, and fill this process's parts.

        Raises:
            ConfigError: DeepSpeed, or something that it needs to compile, is missing.
        """
        deepspeed = import_deepspeed(world)
        settings = deepspeed_settings(config, precision, max_grad_norm, recompute=recompute)
        if isinstance(config, Zero3NvmeConfig):
            require_aio(config)
        dtype = forward_dtype(precision)
        self.world = world
        self.model = blueprint.model
        self.shapes = blueprint.shapes
        self.trainable = {name for name, p in self.model.named_parameters() if p.requires_grad}
        if isinstance(config, Zero3Config):
            for unit in [*blueprint.units, self.model]:
                blueprint.give_memory(unit, world.device, trained=dtype, frozen=dtype)
                divide(unit, settings, dtype)
        else:
            blueprint.give_memory(self.model, world.device, trained=dtype, frozen=dtype)
        self.engine, *_ = deepspeed.initialize(
            model=self.model, optimizer=blueprint.make_optimizer(self.model), config=settings
        )
        self.partition: Partition = make_partition(self.engine, self.model, world, blueprint.shapes)
        self.partition.make_state()
        self._fill(blueprint)

    @torch.no_grad()
    def _fill(self, blueprint: Blueprint) -> None:
        """Fill this process's parts: the float32 weights, from which forward's come, and frozen ones."""
        for name, part in self.partition.weights().items():
            if isinstance(part, TensorSlice):
                blueprint.source.fill(part.flat, name, part.start)
            else:
                blueprint.source.fill(part.view(-1), name)
            self.partition.store_weight(name, part)
            progress.move()
        self.partition.update_parameters()

    def accumulate(self, inputs: dict[str, Any], scale: torch.Tensor, *, last: bool) -> torch.Tensor:
        """Add the gradients of one micro-batch."""
        if not self.model.training:  # the engine does not know its own mode
            self.engine.train()
        self.engine.set_gradient_accumulation_boundary(last)
        loss_sum: torch.Tensor = self.engine(**inputs).loss_sum
        self.engine.backward(scaled(loss_sum, scale), scale_wrt_gas=False)
        return loss_sum.detach()

    @torch.no_grad()
    def predict(self, inputs: dict[str, Any]) -> Any:
        """Run the model without dropout and gradients."""
        if self.model.training:
            self.engine.eval()
        return self.engine(**inputs)

    def step(self, lr: float) -> StepResult:
        """Let the engine clip and update, or skip; find out which."""
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr
        probe = Probe(self.partition.local_weights())
        self.engine.step()
        skipped = not self.engine.was_step_applied()
        norm = self.engine.get_global_grad_norm()
        return StepResult(
            grad_norm=float("nan") if norm is None else float(norm),
            skipped=skipped,
            unchanged=not skipped and probe.unchanged(),
        )

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return this process's parts of weights and moments."""
        state = {f"model.{name}": part for name, part in self.partition.weights().items()}
        return state | {f"optimizer.{name}": part for name, part in self.partition.moments().items()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, torch.Tensor], steps: int) -> None:
        """Take over parts, after `steps` updates: the float32 ones, then what forward reads."""
        for name in self.shapes:
            self.partition.store_weight(name, state[f"model.{name}"])
        for name, part in state.items():
            if name.startswith("optimizer."):
                self.partition.store_moment(name.removeprefix("optimizer."), part)
        self.partition.set_steps(steps)
        self.partition.update_parameters()
        self.engine.empty_partition_cache()  # stage 3 would go on with whole parameters that it kept from before


def import_deepspeed(world: World) -> Any:
    """Import DeepSpeed for the world's device and join it to the process group.

    Raises:
        ConfigError: It is not installed.
    """
    os.environ.setdefault("DS_ACCELERATOR", world.device.type)
    os.environ.setdefault("LOCAL_RANK", str(world.local_rank))
    try:
        import deepspeed
    except ImportError as error:
        raise ConfigError(
            f"strategy=zero* needs the package deepspeed, found none that can be imported ({error}). "
            "Install it: pip install deepspeed, or use strategy=fsdp2, which needs none."
        ) from None
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)  # it warns of every optimizer that is not its own
    warnings.filterwarnings("ignore", message=r"`torch\.distributed\.\w+` is deprecated", category=FutureWarning)
    if world.device.type == "cpu":
        # Else it compiles an operation for inference on CPUs: a compiler is needed, and a run that was killed while
        # compiling leaves a lock behind on which every later run waits without end.
        deepspeed.ops.__compatible_ops__ = {}
    deepspeed.init_distributed(dist_backend="nccl" if world.device.type == "cuda" else "gloo", verbose=False)
    return deepspeed


def divide(unit: torch.nn.Module, settings: dict[str, Any], dtype: torch.dtype) -> None:
    """Let go of all but this process's parts of a unit's parameters, whose values come later."""
    from deepspeed.runtime.zero import Init

    class Division(Init):  # type: ignore[misc]
        def _zero_init_param(self, parameter: torch.nn.Parameter) -> None:
            """Leave out DeepSpeed's broadcast: it would send the whole model, still without values, to every rank."""
            self._convert_to_deepspeed_param(parameter)
            parameter.partition()  # type: ignore[attr-defined]

    Division(module=unit, config_dict_or_path=settings, dtype=dtype)


def require_aio(config: Zero3NvmeConfig) -> None:
    """Make sure that DeepSpeed can write to the disk.

    Raises:
        ConfigError: Its operation cannot be built, or there is no folder.
    """
    from deepspeed.ops.op_builder import AsyncIOBuilder

    if config.nvme_path is None:
        raise ConfigError("strategy.nvme_path must be a folder on a local disk, got null. Give strategy.nvme_path.")
    if not AsyncIOBuilder().is_compatible(verbose=False):
        raise ConfigError(
            "strategy=zero3_nvme needs DeepSpeed's operation async_io, which cannot be built here. "
            "Install libaio-dev and g++, or use strategy=zero3_offload."
        )
