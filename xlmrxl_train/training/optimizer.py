"""AdamW and its parameter groups."""

import torch
from torch import nn

from xlmrxl_train.config import OptimizerConfig


class OptimizerPlan:
    """Which parameters decay, by name: known before an engine changes their shapes."""

    def __init__(self, config: OptimizerConfig, model: nn.Module) -> None:
        """Look at a model with its real shapes, perhaps on the meta device."""
        self.config = config
        self.decayed = decayed_names(model)

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return AdamW for the same model, fused (one kernel for all tensors), which CPU and CUDA both have."""
        config = self.config
        beta1, beta2 = config.betas
        groups = self.groups(model)
        return torch.optim.AdamW(groups, lr=config.lr, betas=(beta1, beta2), eps=config.eps, fused=True)

    def groups(self, model: nn.Module) -> list[dict[str, object]]:
        """Return the trainable parameters that decay, and those that do not."""
        trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        decay = [parameter for name, parameter in trainable.items() if name in self.decayed]
        keep = [parameter for name, parameter in trainable.items() if name not in self.decayed]
        groups: list[dict[str, object]] = [
            {"params": decay, "weight_decay": self.config.weight_decay},
            {"params": keep, "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]


def decayed_names(model: nn.Module) -> set[str]:
    """Return the names of matrices; biases, norms and embeddings do not decay."""
    kept = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.LayerNorm)
        for parameter in module.parameters(recurse=False)
    }
    return {name for name, parameter in model.named_parameters() if parameter.dim() > 1 and id(parameter) not in kept}
