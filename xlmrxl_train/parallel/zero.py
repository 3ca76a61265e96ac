"""DeepSpeed's ZeRO, called directly: stage 1 divides moments and float32 weights, 2 gradients, 3 parameters.

accelerate's wrapper is not used: it steps the optimizer inside backward, and on CPU ranks it trains every rank alone.
"""

from functools import partial
from typing import Any

import torch

from xlmrxl_train.config import Zero3Config, ZeroConfig
from xlmrxl_train.parallel.blueprint import Blueprint
from xlmrxl_train.parallel.probe import OptimizerWatch
from xlmrxl_train.parallel.strategy import StepResult, begun, forward_dtype, scaled, set_rates
from xlmrxl_train.parallel.tensor_slice import TensorSlice
from xlmrxl_train.parallel.world import World
from xlmrxl_train.parallel.zero_needs import import_deepspeed
from xlmrxl_train.parallel.zero_partition import DividedMoments, DividedParameters, Partition
from xlmrxl_train.parallel.zero_settings import deepspeed_settings
from xlmrxl_train.parallel.zero_swapped import SwappedParameters
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
            ConfigError: DeepSpeed is missing, or does not know a key that is passed through.
        """
        deepspeed = import_deepspeed(world)
        settings = deepspeed_settings(config, precision, max_grad_norm, recompute=recompute)
        dtype = forward_dtype(precision)
        dtypes = dict.fromkeys(blueprint.shapes, dtype)  # DeepSpeed has one for all
        self.world = world
        self.model = blueprint.model
        self.shapes = blueprint.shapes
        self.trainable = {name for name, p in self.model.named_parameters() if p.requires_grad}
        if isinstance(config, Zero3Config):
            for unit in [*blueprint.units, self.model]:
                blueprint.give_memory(unit, world.device, dtypes)
                divide(unit, settings, dtype)
        else:
            blueprint.give_memory(self.model, world.device, dtypes)
        self.updates = 0
        optimizer = blueprint.make_optimizer(self.model)
        for group in optimizer.param_groups:
            if group["begins"]:
                for parameter in group["params"]:
                    parameter.register_hook(partial(self._dropped, group))
        self.engine, *_ = deepspeed.initialize(model=self.model, optimizer=optimizer, config=settings)
        self.partition = partition_of(self.engine)(self.engine, self.model, world, blueprint.shapes)
        self.partition.keep(blueprint.kept)
        self.watch = OptimizerWatch(self.partition.optimizer)
        self.partition.make_state()
        self._fill(blueprint)

    @torch.no_grad()
    def _fill(self, blueprint: Blueprint) -> None:
        """Fill this process's parts: the float32 weights, from which forward's come, and frozen ones."""
        for name, moment, part in self.partition.visit(write=True):
            if moment is None:
                start = part.start if isinstance(part, TensorSlice) else 0
                blueprint.source.fill(flat_of(part), name, start)
                progress.move()
        self.partition.update_parameters()

    def _dropped(self, group: dict[str, Any], gradient: torch.Tensor) -> torch.Tensor:
        """Return the gradient of a parameter, zeros before its group moves: then its moments stay zeros as well."""
        return gradient if begun(group, self.updates) else torch.zeros_like(gradient)

    def accumulate(self, inputs: dict[str, Any], scale: torch.Tensor, *, last: bool) -> torch.Tensor:
        """Add the gradients of one micro-batch."""
        self._set_mode(training=True)
        self.engine.set_gradient_accumulation_boundary(last)
        loss_sum: torch.Tensor = self.engine(**inputs).loss_sum
        self.engine.backward(scaled(loss_sum, scale), scale_wrt_gas=False)
        return loss_sum.detach()

    @torch.no_grad()
    def predict(self, inputs: dict[str, Any]) -> Any:
        """Run the model without dropout and gradients."""
        self._set_mode(training=False)
        return self.engine(**inputs)

    def _set_mode(self, *, training: bool) -> None:
        if training == self.model.training:  # the engine does not know its own mode
            return
        self.engine.train(training)
        if self.engine.zero_optimization_stage() == 3:
            # Evaluation runs other modules. Prefetching by its order, the first step after it would gather the frozen
            # rows of an embedding.
            order = self.engine.optimizer.parameter_offload.get_param_coordinator()
            if not order.is_invalid_trace():
                order._invalidate_trace()

    def step(self, lr: float) -> StepResult:
        """Let the engine clip and update, or skip; find out which."""
        rates = set_rates(self.partition.optimizer, lr, self.updates)
        self.watch.reset()
        self.engine.step()
        skipped = not self.engine.was_step_applied()
        if not skipped:
            self.updates += 1
            if any(group["begins"] == self.updates for group in self.partition.optimizer.param_groups):
                self.partition.set_updates(self.updates)  # those that begin have counted their steps of nothing
        norm = self.engine.get_global_grad_norm()
        return StepResult(
            grad_norm=float("nan") if norm is None else float(norm),
            skipped=skipped,
            unchanged=not skipped and self.watch.unchanged,
            rates=rates,
        )

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return this process's parts of weights and moments."""
        return {
            key_of(name, moment): self.partition.kept(name, part)
            for name, moment, part in self.partition.visit(write=False)
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, torch.Tensor], steps: int) -> None:
        """Take over parts, after `steps` updates: the float32 ones, then what forward reads."""
        for name, moment, part in self.partition.visit(write=True):
            here, given = flat_of(part), flat_of(state[key_of(name, moment)])
            if here.data_ptr() != given.data_ptr():
                here.copy_(given)
        self.updates = steps
        self.partition.set_updates(steps)
        self.partition.update_parameters()
        self.engine.empty_partition_cache()  # stage 3 would go on with whole parameters that it kept from before


def partition_of(engine: Any) -> type[Partition]:
    """Return how the engine's stage divides a model."""
    if engine.zero_optimization_stage() != 3:
        return DividedMoments
    return SwappedParameters if engine.optimizer.swap_optimizer else DividedParameters


def key_of(name: str, moment: str | None) -> str:
    """Return what a checkpoint calls a parameter, or one of its moments."""
    return f"model.{name}" if moment is None else f"optimizer.{name}.{moment}"


def flat_of(part: torch.Tensor) -> torch.Tensor:
    """Return the elements of a part."""
    return part.flat if isinstance(part, TensorSlice) else part.view(-1)


def divide(unit: torch.nn.Module, settings: dict[str, Any], dtype: torch.dtype) -> None:
    """Let go of all but this process's parts of a unit's parameters, whose values come later."""
    from deepspeed.runtime.zero import Init
    from deepspeed.utils import groups

    class Division(Init):  # type: ignore[misc]
        def _zero_init_param(self, parameter: torch.nn.Parameter) -> None:
            """Leave out DeepSpeed's broadcast: it would send the whole model, still without values, to every rank."""
            self._convert_to_deepspeed_param(parameter)
            parameter.partition()  # type: ignore[attr-defined]

    # The ranks that share a second copy under ZeRO++: the first unit makes their group, and would for every unit.
    sharing = groups._get_zero_param_intra_parallel_group()
    Division(module=unit, config_dict_or_path=settings, dtype=dtype, zero_param_parallel_group=sharing)
