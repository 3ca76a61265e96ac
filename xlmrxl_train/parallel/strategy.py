"""The contract between the training loop and an engine, and what the engines have in common."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from xlmrxl_train.parallel.world import World


@dataclass(kw_only=True, slots=True)
class StepResult:
    """What one optimizer step did."""

    grad_norm: float  # over all parameters and ranks, before clipping
    skipped: bool  # a loss or gradient was not finite: no weight was changed, on any rank
    unchanged: bool = False  # no weight differs although none of this was the reason; see `parallel/probe.py`
    rates: dict[str, float] = field(default_factory=dict)  # by part of the model, where they differ


class Strategy(Protocol):
    """One way to spread a model over the world. The loop calls it the same way whichever it is."""

    world: World
    model: nn.Module  # the public model; its parameters are this process's parts
    shapes: dict[str, torch.Size]  # of whole parameters, by name
    trainable: set[str]  # names of parameters
    whole: bool  # whether every parameter is whole in this process at all times

    def accumulate(self, inputs: dict[str, Any], scale: torch.Tensor, *, last: bool) -> torch.Tensor:
        """Run one micro-batch forward and backward, and add the gradients of its loss sum times `scale`.

        A loss that is not finite makes gradients that are not, so that `step` skips the update on every rank.

        Args:
            inputs: Keyword arguments of the model's forward.
            scale: float32 scalar: world size over the step's number of targets; 0 for a micro-batch that only keeps
                ranks in step.
            last: Whether this is the step's last micro-batch, after which gradients are reduced.

        Returns:
            The loss sum over the micro-batch's targets, float32, detached.
        """

    def predict(self, inputs: dict[str, Any]) -> Any:
        """Run the model forward without dropout and gradients. Every rank calls it equally often."""

    def step(self, lr: float) -> StepResult:
        """Clip, update the weights at learning rate `lr`, and clear gradients.

        The optimizer's groups have "scale", their rate over `lr`, and "begins": before so many updates a group does
        not move, collects no moments, and does not count in the norm, as if it were not trained. Skipped steps are no
        updates.
        """

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return weights and moments under the model's own names, as tensors that are filled in place.

        Each is whole, or a TensorSlice where processes hold parts; float32, but frozen weights have `forward_dtype`.
        """

    def load_state_dict(self, state: dict[str, torch.Tensor], steps: int) -> None:
        """Take over `state`, whose tensors came from `state_dict`, after `steps` updates of the optimizer."""


def forward_dtype(precision: str) -> torch.dtype:
    """Return the dtype of matrix products, in which frozen weights are held whatever the strategy.

    No optimizer moves them, so they need no float32 copy. Those of a float32 file are rounded once, when they are read.
    """
    return torch.bfloat16 if precision == "bf16" else torch.float32


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Return the precision policy for float32 weights: matrix products in bfloat16 under bf16, else float32.

    Norms, softmax and loss ask for float32 themselves; the residual stream stays float32, since it is a sum that
    begins with the float32 embedding.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def scaled(loss_sum: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return `loss_sum` times `scale`, with a gradient of NaN where the loss is not finite.

    The gradient of such a loss may be finite; without a word among the ranks, NaN in it reaches all of them.
    """
    return loss_sum * torch.where(loss_sum.detach().isfinite(), scale, torch.nan)


def norm_of_gradients(parameters: Sequence[nn.Parameter]) -> torch.Tensor:
    """Return the norm of all gradients together, a float32 scalar."""
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def set_rates(optimizer: torch.optim.Optimizer, lr: float, updates: int) -> dict[str, float]:
    """Give every group its rate for the step after so many updates; return them by part, where they differ."""
    rates: dict[str, float] = {}
    for group in optimizer.param_groups:
        rate = lr * group["scale"] if begun(group, updates) else 0.0
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
        rates[group["part"]] = rate
    return rates if len(rates) > 1 else {}


def begun(group: dict[str, Any], updates: int) -> bool:
    """Whether a group moves in the step after so many updates."""
    return bool(updates >= group["begins"])


def own_updates(group: dict[str, Any], updates: int) -> float:
    """Return how many of the updates moved a group, which Adam corrects its moments by."""
    return float(max(0, updates - group["begins"]))


def moments_of(optimizer: torch.optim.Optimizer) -> tuple[str, ...]:
    """Return the names of an optimizer's state tensors that are shaped as the parameter."""
    return ("exp_avg", "exp_avg_sq") if "betas" in optimizer.defaults else ()
