"""Which activations backward computes again instead of keeping them."""

import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
    noop_context_fn,
)

from xlmrxl_train.errors import ConfigError

PATTERN = re.compile(r"none|full|selective|every_([2-9]|[1-9]\d+)")
# Attention's own products, some percent of a layer, are computed again: softmax overwrites their result.
_PRODUCTS = [torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.linear.default]


class Recompute:
    """A choice: none, full, every_<n> or selective."""

    def __init__(self, choice: str) -> None:
        """Understand `choice`.

        Args:
            choice: "none" keeps every activation. "full" keeps each layer's input and runs the layer again: a third
                more time. "every_2" does so for every second layer, and so on. "selective" keeps the results of linear
                layers' products too, and computes attention, norms, GELU and dropout again.

        Raises:
            ConfigError: It is none of these.
        """
        match = PATTERN.fullmatch(choice)
        if match is None:
            raise ConfigError(
                f'recompute must be none, full, selective or every_<n> with n from 2, got "{choice}". '
                '"full" saves the most memory and costs a third more time.'
            )
        self.choice = choice
        self.period = 0 if choice == "none" else int(match[1] or 1)

    def run(self, layer: nn.Module, index: int, *inputs: object) -> Tensor:
        """Run layer number `index`, from 0."""
        if not self.period or index % self.period or not (layer.training and torch.is_grad_enabled()):
            result: Tensor = layer(*inputs)
            return result
        contexts = _keep_products if self.choice == "selective" else noop_context_fn
        again = checkpoint(layer, *inputs, use_reentrant=False, context_fn=contexts)
        assert isinstance(again, Tensor)
        return again


def _keep_products() -> Any:
    return create_selective_checkpoint_contexts(_policy)


def _policy(context: object, operation: object, *arguments: object, **options: object) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in _PRODUCTS else CheckpointPolicy.PREFER_RECOMPUTE
