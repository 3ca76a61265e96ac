"""A linear layer whose weight is held in 8 or 4 bits and does not learn: what stands below an adapter.

Suffixes: T tokens, K input features, N output features.
"""

from collections.abc import Callable
from math import gcd
from typing import Any

import torch
from torch import Tensor, nn

from xlmrxl_train.errors import ConfigError
from xlmrxl_train.model.layers import matmul_dtype
from xlmrxl_train.model.quantization import check_installed
from xlmrxl_train.model.quantized_weights import IntegerWeight

_BLOCK, _SCALES = 64, 256  # nf4: values that share a scale, and scales that share one of their own


def rounded(weight_NK: Tensor, kind: str, device: torch.device) -> Tensor:
    """Return a matrix as a bfloat16 tensor of torchao's on `device`: int8 with a scale per row, or nf4.

    Source: nf4 is that of arXiv 2305.14314, with its double quantization of the scales.

    Raises:
        ConfigError: torchao is missing.
    """
    check_installed()
    if kind == "int8":
        return IntegerWeight.rounded(weight_NK, kind, 0).to_torchao(device)
    from torchao.quantization import to_nf4  # late: an optional package

    found: Tensor = to_nf4(weight_NK.to(device, torch.bfloat16), _BLOCK, gcd(weight_NK.numel() // _BLOCK, _SCALES))
    return found


def unrounded(weight: Any) -> Tensor:
    """Return what `rounded` made as a plain bfloat16 matrix."""
    matrix: Tensor = weight.get_original_weight() if hasattr(weight, "get_original_weight") else weight.dequantize()
    return matrix


class RoundedLinear(nn.Module):
    """What stands in the place of a linear layer of the encoder; `fill` gives it its weight.

    The weight is neither a parameter nor a buffer: engines would cut it up, or send it around in every step.
    """

    W_q: Tensor
    """peft's name for a weight that its layer's `dequantize` reads."""

    def __init__(self, linear: nn.Linear, kind: str) -> None:
        """Take the place of `linear`, of which the shape and the bias count.

        Raises:
            ConfigError: nf4's blocks do not fit the shape.
        """
        super().__init__()
        shape = tuple(linear.weight.shape)
        if kind == "nf4" and linear.weight.numel() % _BLOCK:
            raise ConfigError(
                f"tuning.weights=nf4 needs matrices of a multiple of {_BLOCK} elements, got {shape[0]} x {shape[1]}. "
                "Choose int8, or another shape."
            )
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.kind = kind
        self.bias = linear.bias

    @property
    def weight(self) -> Tensor:
        """The rounded matrix; its dtype is that of products."""
        return self.W_q

    def fill(self, weight_NK: Tensor, device: torch.device) -> None:
        """Round a matrix and keep it."""
        self.W_q = rounded(weight_NK, self.kind, device)

    def dequantize(self) -> Tensor:
        """Return the matrix that products are made with, [N, K]."""
        return unrounded(self.W_q)

    def forward(self, input: Tensor) -> Tensor:
        """Return [T, N]."""
        dtype = matmul_dtype(self, input)
        product: Tensor = _RoundedProduct.apply(input.to(dtype), self.bias.to(dtype), self.dequantize)  # type: ignore[no-untyped-call]
        return product


class _RoundedProduct(torch.autograd.Function):
    """Make the plain matrix anew for forward and for backward, and keep it for neither."""

    @staticmethod
    def forward(ctx: Any, features_TK: Tensor, bias_N: Tensor, matrix_NK: Callable[[], Tensor]) -> Tensor:
        """Return features x matrix + bias."""
        ctx.matrix_NK = matrix_NK
        return torch.addmm(bias_N, features_TK, matrix_NK().to(features_TK.dtype).t())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of the features alone."""
        (gradient_TN,) = gradients
        return gradient_TN @ ctx.matrix_NK().to(gradient_TN.dtype), None, None
