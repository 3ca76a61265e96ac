"""Weights kept in the form that a CPU's bfloat16 products read, for as long as they do not change.

Under autocast every forward pass casts each float32 weight, and oneDNN brings it into its own blocks; `prepacked` has
both done once for many passes. A product of a prepacked weight also adds the bias and applies GELU while its results
are in registers. The precision policy is the same, factors in bfloat16 and sums in float32, except that what GELU
reads is not rounded to bfloat16 first.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

_QUANTIZED = "qdata"  # what torchao's tensors of integers have, and others have not
_SHARE_OF_MEMORY = 1 / 16  # of the machine's: the copies of several processes still fit beside their models
_TYPICAL_ROWS = 4096  # oneDNN chooses blocks for so many; always the same, so that results are as well


class PrepackedWeight:
    """A bfloat16 copy of a linear layer's weight, in oneDNN's blocks, and of its bias."""

    def __init__(self, linear: nn.Linear) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().bfloat16(), _TYPICAL_ROWS)
        bias: Tensor | None = linear.bias  # nn.Linear's annotation leaves out None
        self._bias = None if bias is None else bias.detach().bfloat16()

    def product(self, features: Tensor, *, gelu: bool) -> Tensor:
        """Return the layer's output in bfloat16, with `gelu` its exact GELU."""
        # "none" is no operation where "gelu" is the operation, and no approximation where it is the algorithm.
        operation, algorithm = ("gelu", "none") if gelu else ("none", "")
        output: Tensor = torch.ops.mkldnn._linear_pointwise(
            features, self._weight, self._bias, operation, [], algorithm
        )
        return output


class PrepackableLinear(nn.Linear):
    """A linear layer that `prepacked` can give a copy of its weight."""

    may_prepack = False
    _prepacked: PrepackedWeight | None = None

    def drop_prepacked(self) -> None:
        """Forget the copy and make no other."""
        self.may_prepack, self._prepacked = False, None

    def product(self, features: Tensor, *, gelu: bool = False) -> Tensor:
        """Return the product in the dtype of `features`, with `gelu` its GELU; the copy is made when first of use."""
        cpu_bf16 = features.dtype == torch.bfloat16 and features.device.type == "cpu"
        if self.may_prepack and cpu_bf16 and not torch.is_grad_enabled():
            if self._prepacked is None:
                self._prepacked = PrepackedWeight(self)
            return self._prepacked.product(features, gelu=gelu)
        output = functional.linear(features, self.weight, self.bias)
        return functional.gelu(output) if gelu else output


@contextmanager
def prepacked(model: nn.Module) -> Iterator[None]:
    """Let forward passes of `model` inside the block cast and reorder each linear layer's weight only once.

    It serves passes in bfloat16 without gradients on a CPU that oneDNN computes bfloat16 on; others are as always. The
    copies take two bytes per weight. If that is more than a sixteenth of the machine's memory, none is made: the rule
    looks at no free memory, since results would then depend on it. Weights must not change inside the block.
    """
    layers = [
        module
        for module in model.modules()
        if isinstance(module, PrepackableLinear) and not module.may_prepack and not hasattr(module.weight, _QUANTIZED)
    ]
    if not _supported() or 2 * sum(layer.weight.numel() for layer in layers) > _SHARE_OF_MEMORY * _memory():
        layers = []
    for layer in layers:
        layer.may_prepack = True
    try:
        yield
    finally:
        for layer in layers:
            layer.drop_prepacked()


def _supported() -> bool:
    operations = torch.ops.mkldnn
    if not hasattr(operations, "_linear_pointwise") or not hasattr(operations, "_reorder_linear_weight"):
        return False
    return bool(operations._is_mkldnn_bf16_supported())


def _memory() -> int:
    """Return the machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
