"""Linear, layer norm, embedding and dropout with this project's precision rules.

Layer norms compute in float32 whatever comes in. A linear layer computes in autocast's dtype, or else in its weight's.
None of them initialises itself: `pretrained.initialize` does, once.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from xlmrxl_train.model.prepacking import PrepackableLinear

_LANE_VALUES = 65536  # one random 16-bit number decides about one element


def matmul_dtype(module: nn.Module, features: Tensor) -> torch.dtype:
    """Return the dtype that `module`'s matrix product will have for `features`.

    Adapters and quantized layers may stand where an nn.Linear was; without a floating weight the input's dtype holds.
    """
    device_type = features.device.type
    if torch.is_autocast_enabled(device_type):
        return torch.get_autocast_dtype(device_type)
    weight = getattr(module, "weight", None)
    if isinstance(weight, Tensor) and weight.is_floating_point():
        return weight.dtype
    return features.dtype


class Linear(PrepackableLinear):
    """A linear layer that casts its input to the dtype of its product."""

    def reset_parameters(self) -> None:
        """Leave the memory as it is."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the product in autocast's or the weight's dtype."""
        return self.product(input.to(matmul_dtype(self, input)))


class LinearBeforeGelu(Linear):
    """A linear layer that can apply the GELU after it, which is cheaper while its weight is prepacked."""

    def forward(self, input: Tensor, *, gelu: bool = False) -> Tensor:
        """Return the product in autocast's or the weight's dtype, with `gelu` its GELU."""
        return self.product(input.to(matmul_dtype(self, input)), gelu=gelu)


class Embedding(nn.Embedding):
    """An embedding without its own initialisation."""

    def reset_parameters(self) -> None:
        """Leave the memory as it is."""


class LayerNorm(nn.LayerNorm):
    """A layer norm in float32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__(size, eps=eps)

    def forward(self, input: Tensor) -> Tensor:
        """Return float32."""
        return functional.layer_norm(
            input.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps
        )


class Dropout(nn.Dropout):
    """Dropout whose mask is cheap on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        """Return `input` with elements dropped in training."""
        return dropout(input, self.p if self.training else 0.0)


def dropout(features: Tensor, probability: float) -> Tensor:
    """Drop elements with `probability` and scale the others so that the expectation stays."""
    if probability == 0.0:
        return features
    if features.device.type != "cpu" or torch.compiler.is_compiling():
        return functional.dropout(features, probability)
    return features * keep_scale(features, probability)


def keep_scale(features: Tensor, probability: float) -> Tensor:
    """Return a tensor like `features`: 0 where an element is dropped, 1 / (1 - p) where it stays.

    On a CPU torch's Bernoulli takes longer than a layer norm and a GELU together (6 ns per element; this: 1 ns), so
    four elements share one 64-bit random number. `probability` is rounded to 1 / 65536, and the scale is that of
    the rounded one. Drawn from torch's default generator, so recomputation repeats it.
    """
    if features.device.type != "cpu" or torch.compiler.is_compiling():
        return functional.dropout(torch.ones_like(features), probability)
    dropped = round(probability * _LANE_VALUES)
    num_elements = features.numel()
    words = torch.empty(math.ceil(num_elements / 4), dtype=torch.int64).random_(-(2**63), None)
    lanes = words.view(torch.int16)[:num_elements].view(features.shape)
    keep = torch.empty(features.shape, dtype=features.dtype)
    torch.ge(lanes, dropped - _LANE_VALUES // 2, out=keep)
    return keep.mul_(_LANE_VALUES / (_LANE_VALUES - dropped))
