"""One process: the plain training step, from which the other strategies may not differ."""

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from xlmrxl_train.parallel.blueprint import Blueprint
from xlmrxl_train.parallel.moments import moments_in
from xlmrxl_train.parallel.probe import Probe
from xlmrxl_train.parallel.strategy import (
    StepResult,
    autocast,
    begun,
    forward_dtype,
    norm_of_gradients,
    own_updates,
    scaled,
    set_rates,
)
from xlmrxl_train.parallel.world import World


class SingleStrategy:
    """A model, an optimizer and a device."""

    whole = True

    def __init__(self, world: World, blueprint: Blueprint, precision: str, max_grad_norm: float) -> None:
        """Give the model memory and values, then make its optimizer."""
        self.world = world
        self.precision = precision
        self.max_grad_norm = max_grad_norm
        self.shapes = blueprint.shapes
        self.model = blueprint.model
        self.build(blueprint)
        self.root: nn.Module = self.model  # what forward calls; a wrapper in DDP
        self.optimizer = blueprint.make_optimizer(self.model)
        self.parameters = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.trainable = set(self.parameters)
        self.updates = 0

    def build(self, blueprint: Blueprint) -> None:
        """Make the whole model in this process."""
        blueprint.give_memory(self.model, self.world.device, blueprint.dtypes(forward_dtype(self.precision)))
        blueprint.fill()

    def accumulate(self, inputs: dict[str, Any], scale: torch.Tensor, *, last: bool) -> torch.Tensor:
        """Add the gradients of one micro-batch."""
        if not self.model.training:
            self.model.train()
        with self.products():
            loss_sum: torch.Tensor = self.root(**inputs).loss_sum
        scaled(loss_sum, scale).backward()
        return loss_sum.detach()

    @torch.no_grad()
    def predict(self, inputs: dict[str, Any]) -> Any:
        """Run the model without dropout and gradients; nothing is reduced, so ranks may differ in number of calls."""
        if self.model.training:
            self.model.eval()
        with self.products():
            return self.model(**inputs)

    def products(self) -> AbstractContextManager[Any]:
        """Return what gives matrix products their dtype."""
        return autocast(self.precision, self.world.device)

    def step(self, lr: float) -> StepResult:
        """Clip, update unless the norm is not finite, and clear gradients."""
        rates = set_rates(self.optimizer, lr, self.updates)
        for group in self.optimizer.param_groups:
            if not begun(group, self.updates):
                for parameter in group["params"]:
                    parameter.grad = None
        trainable = list(self.parameters.values())
        norm_tensor = self.total_norm(trainable)
        norm = float(norm_tensor)
        skipped = norm != norm or norm == float("inf")
        unchanged = False
        if not skipped:
            if 0 < self.max_grad_norm < norm + 1e-6:  # else torch would multiply every gradient by 1
                torch.nn.utils.clip_grads_with_norm_(trainable, self.max_grad_norm, norm_tensor)
            probe = Probe(self.local_weights())
            self.optimizer.step()
            unchanged = probe.unchanged()
            self.updates += 1
        self.optimizer.zero_grad(set_to_none=True)
        return StepResult(grad_norm=norm, skipped=skipped, unchanged=unchanged, rates=rates)

    def total_norm(self, trainable: list[nn.Parameter]) -> torch.Tensor:
        """Return the norm of the gradients, the same on every rank."""
        return norm_of_gradients(trainable)

    def local_weights(self) -> list[torch.Tensor]:
        """Return this process's parts of the trainable weights."""
        return list(self.parameters.values())

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return weights and moments; the moments are zeros where no step has been made."""
        state = {f"model.{name}": parameter.detach() for name, parameter in self.model.named_parameters()}
        for name, parameter in self.parameters.items():
            for moment, tensor in moments_in(self.optimizer, parameter).items():
                state[f"optimizer.{name}.{moment}"] = tensor
        return state

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, torch.Tensor], steps: int) -> None:
        """Take over weights and moments, after `steps` updates."""
        for name, tensor in SingleStrategy.state_dict(self).items():
            tensor.copy_(state[name])
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                if "step" in self.optimizer.state[parameter]:
                    self.optimizer.state[parameter]["step"].fill_(own_updates(group, steps))
        self.updates = steps
