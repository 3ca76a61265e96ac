"""One process: the plain training step, from which the other strategies may not differ."""

from typing import Any

import torch
from torch import nn

from xlmrxl_train.parallel.strategy import MakeOptimizer, StepResult, autocast, norm_of_gradients
from xlmrxl_train.parallel.world import World


class SingleStrategy:
    """A model, an optimizer and a device."""

    def __init__(
        self, world: World, model: nn.Module, make_optimizer: MakeOptimizer, precision: str, max_grad_norm: float
    ) -> None:
        self.world = world
        self.model = model.to(world.device)
        self.root: nn.Module = self.model  # what forward calls; a wrapper in DDP
        self.optimizer = make_optimizer(self.model)
        self.precision = precision
        self.max_grad_norm = max_grad_norm
        self.trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def accumulate(self, inputs: dict[str, Any], scale: torch.Tensor, *, last: bool) -> torch.Tensor:
        """Add the gradients of one micro-batch."""
        if not self.model.training:
            self.model.train()
        with autocast(self.precision, self.world.device):
            loss_sum: torch.Tensor = self.root(**inputs).loss_sum
        (loss_sum * scale).backward()
        return loss_sum.detach()

    @torch.no_grad()
    def predict(self, inputs: dict[str, Any]) -> Any:
        """Run the model without dropout and gradients; nothing is reduced, so ranks may differ in number of calls."""
        if self.model.training:
            self.model.eval()
        with autocast(self.precision, self.world.device):
            return self.model(**inputs)

    def step(self, lr: float) -> StepResult:
        """Clip, update unless the norm is not finite, and clear gradients."""
        norm_tensor = norm_of_gradients(self.trainable)
        norm = float(norm_tensor)
        skipped = norm != norm or norm == float("inf")
        if not skipped:
            if 0 < self.max_grad_norm < norm + 1e-6:  # else torch would multiply every gradient by 1
                torch.nn.utils.clip_grads_with_norm_(self.trainable, self.max_grad_norm, norm_tensor)
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return StepResult(grad_norm=norm, skipped=skipped)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return weights and moments; the moments are zeros where no step has been made."""
        state = {f"model.{name}": parameter.detach() for name, parameter in self.model.named_parameters()}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                entry = self.optimizer.state.get(parameter, {})
                for moment in ("exp_avg", "exp_avg_sq"):
                    tensor = entry[moment] if moment in entry else torch.zeros_like(parameter.detach())
                    state[f"optimizer.{name}.{moment}"] = tensor
        return state

    def load_state_dict(self, state: dict[str, torch.Tensor], steps: int) -> None:
        """Take over weights and moments, after `steps` updates."""
        fused = {id(p): group.get("fused") for group in self.optimizer.param_groups for p in group["params"]}
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(state[f"model.{name}"])
                if parameter.requires_grad:
                    self.optimizer.state[parameter] = {
                        "step": torch.tensor(
                            float(steps), device=parameter.device if fused[id(parameter)] else torch.device("cpu")
                        ),
                        "exp_avg": state[f"optimizer.{name}.exp_avg"],
                        "exp_avg_sq": state[f"optimizer.{name}.exp_avg_sq"],
                    }
