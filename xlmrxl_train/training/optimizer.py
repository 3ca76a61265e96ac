"""AdamW and its parameter groups."""

import torch
from torch import nn

from xlmrxl_train.config import OptimizerConfig


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Return two groups of trainable parameters: matrices decay; biases, norms and embeddings do not."""
    not_decayed = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.LayerNorm)
        for parameter in module.parameters(recurse=False)
    }
    decay: list[nn.Parameter] = []
    keep: list[nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            matrix = parameter.dim() > 1 and id(parameter) not in not_decayed
            (decay if matrix else keep).append(parameter)
    groups: list[dict[str, object]] = [
        {"params": decay, "weight_decay": weight_decay},
        {"params": keep, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def make_optimizer(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Return AdamW, fused (one kernel for all tensors), which CPU and CUDA both have."""
    beta1, beta2 = config.betas
    return torch.optim.AdamW(
        parameter_groups(model, config.weight_decay), lr=config.lr, betas=(beta1, beta2), eps=config.eps, fused=True
    )
