"""AdamW and its parameter groups: which weights decay, at which share of the rate they move, and from when on."""

import re
from dataclasses import dataclass

import torch
from torch import nn

from xlmrxl_train.config import OptimizerConfig
from xlmrxl_train.model.quantization import check_installed

_LAYER = re.compile(r"(?:^|\.)encoder\.layer\.(\d+)\.")
_EMBEDDINGS = re.compile(r"(?:^|\.)embeddings\.")
_FINAL_NORM = re.compile(r"(?:^|\.)encoder\.LayerNorm\.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How a part of the model moves, beside the others."""

    part: str  # what metrics call it
    scale: float = 1.0  # its rate over optimizer.lr's
    begins: int = 0  # updates before its first one


class OptimizerPlan:
    """How each parameter moves, by name: known before an engine changes shapes."""

    def __init__(self, config: OptimizerConfig, model: nn.Module, steps_per_epoch: int = 0) -> None:
        """Look at a model with its real shapes, perhaps on the meta device.

        Args:
            config: Of the run.
            model: With the names that it will be trained under.
            steps_per_epoch: Optimizer steps; 0 where nothing will be trained.
        """
        self.config = config
        self.steps_per_epoch = steps_per_epoch
        self.decayed = decayed_names(model)
        layers = [int(match[1]) for name, _ in model.named_parameters() if (match := _LAYER.search(name))]
        self.num_layers = max(layers, default=-1) + 1

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return AdamW for the same model, fused (one kernel for all tensors), which CPU and CUDA both have.

        Raises:
            ConfigError: It is to be torchao's, which is not installed.
        """
        config, groups = self.config, self.groups(model)
        beta1, beta2 = config.betas
        if config.name == "adamw_8bit":
            check_installed("optimizer.name=adamw_8bit needs")
            from xlmrxl_train.parallel.adamw_8bit import make_adamw_8bit

            return make_adamw_8bit(groups, lr=config.lr, betas=(beta1, beta2), eps=config.eps)
        return torch.optim.AdamW(groups, lr=config.lr, betas=(beta1, beta2), eps=config.eps, fused=True)

    def groups(self, model: nn.Module) -> list[dict[str, object]]:
        """Return the trainable parameters by decay and pace, those that decay first."""
        members: dict[tuple[bool, float, int], tuple[str, list[nn.Parameter]]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                pace = self.pace(name)
                key = name not in self.decayed, pace.scale, pace.begins
                members.setdefault(key, (pace.part, []))[1].append(parameter)
        return [
            {
                "params": parameters,
                "weight_decay": 0.0 if kept else self.config.weight_decay,
                "part": part,
                "scale": scale,
                "begins": begins,
            }
            for (kept, scale, begins), (part, parameters) in sorted(members.items(), key=lambda item: item[0][0])
        ]

    def pace(self, name: str) -> Pace:
        """Return how a parameter moves.

        Layer i of n has the rate lr * layer_decay^(n - i) and the embeddings lr * layer_decay^(n + 1); the norm above
        all layers goes with the last one, and whatever else there is belongs to the head. Layers thaw from the top,
        after them the embeddings.

        Source: microsoft/unilm 2312c6f, beit/optim_factory.py (exponents). Unbabel/COMET 0b964e6,
        comet/encoders/bert.py has layer_decay^i instead, by which the lowest layers move fastest. arXiv 1801.06146, 3.3
        (gradual unfreezing).
        """
        config = self.config
        if match := _LAYER.search(name):
            part, distance = f"layer.{match[1]}", self.num_layers - int(match[1])
        elif _EMBEDDINGS.search(name):
            part, distance = "embeddings", self.num_layers + 1
        elif _FINAL_NORM.search(name):
            part, distance = f"layer.{self.num_layers - 1}", 1
        else:
            return Pace(part="head", scale=1.0 if config.head_lr is None else config.head_lr / config.lr)
        epochs = config.unfreeze_after + (config.unfreeze_every or 0.0) * (distance - 1)
        return Pace(
            part=part if config.layer_decay != 1 or config.unfreeze_every else "encoder",
            scale=config.layer_decay**distance,
            begins=round(epochs * self.steps_per_epoch),
        )


def decayed_names(model: nn.Module) -> set[str]:
    """Return the names of matrices; biases, norms and embeddings do not decay."""
    kept = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.LayerNorm)
        for parameter in module.parameters(recurse=False)
    }
    return {name for name, parameter in model.named_parameters() if parameter.dim() > 1 and id(parameter) not in kept}
