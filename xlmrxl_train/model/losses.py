"""Loss sums with their target counts, in float32.

Suffixes: B examples, C classes, T rows, M rows with a target, D features, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

IGNORE_INDEX = -100
# Logits held at once by the chunked loss: 256 MB in float32.
_CHUNK_ELEMENTS = 2**26

LossSum = tuple[Tensor, Tensor]
"""Scalar float32 sum over targets; scalar float32 number (or weight) of targets."""


def cross_entropy_sum(logits_BC: Tensor, labels_B: Tensor, class_weights: list[float] | None = None) -> LossSum:
    """Sum the cross-entropy over labels that are not -100; weights count as in torch's weighted mean."""
    weights_C = None if class_weights is None else torch.tensor(class_weights, device=logits_BC.device)
    labels_B = labels_B.long()
    loss_sum = functional.cross_entropy(
        logits_BC.float(), labels_B, weight=weights_C, ignore_index=IGNORE_INDEX, reduction="sum"
    )
    targets_B = labels_B.ne(IGNORE_INDEX)
    if weights_C is None:
        return loss_sum, targets_B.sum().float()
    return loss_sum, (weights_C[labels_B.clamp(min=0)] * targets_B).sum()


def squared_error_sum(logits: Tensor, labels: Tensor) -> LossSum:
    """Sum squared errors; a target of NaN marks an element that is left out."""
    return _masked_sum(functional.mse_loss, logits.float(), labels.float())


def binary_cross_entropy_sum(logits: Tensor, labels: Tensor) -> LossSum:
    """Sum the binary cross-entropy of each logit; a target of NaN marks an element that is left out."""
    return _masked_sum(functional.binary_cross_entropy_with_logits, logits.float(), labels.float())


def _masked_sum(function: Callable[..., Tensor], logits: Tensor, labels: Tensor) -> LossSum:
    left_out = labels.isnan()
    losses = function(logits, labels.masked_fill(left_out, 0.0), reduction="none")
    return losses.masked_fill(left_out, 0.0).sum(), left_out.logical_not().sum().float()


def classification_loss(
    logits_BC: Tensor, labels: Tensor, problem_type: str | None, class_weights: list[float] | None
) -> LossSum:
    """Apply the loss that `problem_type` names; None infers it from labels and classes as the Hub does."""
    if problem_type is None:
        if logits_BC.shape[1] == 1:
            problem_type = "regression"
        elif not labels.is_floating_point():
            problem_type = "single_label_classification"
        else:
            problem_type = "multi_label_classification"
    if problem_type == "regression":
        return squared_error_sum(logits_BC, labels.view_as(logits_BC))
    if problem_type == "multi_label_classification":
        return binary_cross_entropy_sum(logits_BC, labels)
    return cross_entropy_sum(logits_BC, labels.flatten(), class_weights)


def shift_labels(labels_T: Tensor, offsets: Tensor) -> Tensor:
    """Give each row the label of the next one; a sequence's last row has no target.

    Args:
        labels_T: Packed labels.
        offsets: [B + 1] where sequences begin.
    """
    shifted_T = labels_T.roll(-1)
    return shifted_T.index_fill(0, offsets[1:].long() - 1, IGNORE_INDEX)


def chunked_cross_entropy(
    hidden_MD: Tensor, weight_VD: Tensor, bias_V: Tensor, labels_M: Tensor, dtype: torch.dtype
) -> Tensor:
    """Return each row's cross-entropy [M] of `hidden @ weight' + bias` without ever holding all logits.

    The vocabulary is visited in chunks, once for the log of the normaliser and once more in backward; so each piece
    of the weight's gradient is written once, whatever M.

    Args:
        hidden_MD: Rows with a target; M may be 0.
        weight_VD: Output embedding, often tied to the input's.
        bias_V: Its bias.
        labels_M: Token ids, all valid.
        dtype: Of the matrix products.
    """
    losses_M: Tensor = _ChunkedCrossEntropy.apply(hidden_MD, weight_VD, bias_V, labels_M, dtype)  # type: ignore[no-untyped-call]
    return losses_M


def _chunks(num_rows: int, vocab_size: int) -> list[tuple[int, int]]:
    width = max(1, _CHUNK_ELEMENTS // max(1, num_rows))
    return [(first, min(first + width, vocab_size)) for first in range(0, vocab_size, width)]


def _chunk_logits(hidden: Tensor, weight: Tensor, bias: Tensor, first: int, last: int, dtype: torch.dtype) -> Tensor:
    logits = hidden.to(dtype) @ weight[first:last].to(dtype).t()
    return logits.float().add_(bias[first:last].float())  # logits are ours, and as large as the chunk


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, dtype: torch.dtype) -> Tensor:
        normaliser_M = torch.full((hidden.shape[0],), -torch.inf, device=hidden.device)
        target_M = torch.zeros(hidden.shape[0], device=hidden.device)
        with torch.autocast(hidden.device.type, enabled=False):
            for first, last in _chunks(hidden.shape[0], weight.shape[0]):
                logits_MC = _chunk_logits(hidden, weight, bias, first, last, dtype)
                normaliser_M = torch.logaddexp(normaliser_M, logits_MC.logsumexp(1))
                column_M = (labels - first).clamp(0, last - first - 1)
                inside_M = (labels >= first) & (labels < last)
                target_M += logits_MC.gather(1, column_M[:, None])[:, 0] * inside_M
        ctx.save_for_backward(hidden, weight, bias, labels, normaliser_M)
        ctx.dtype = dtype
        return normaliser_M - target_M

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_M: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, labels, normaliser_M = ctx.saved_tensors
        grad_hidden = torch.zeros_like(hidden, dtype=torch.float32)
        grad_weight = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        grad_bias = torch.empty_like(bias) if ctx.needs_input_grad[2] else None
        cast = hidden.to(ctx.dtype)
        for first, last in _chunks(hidden.shape[0], weight.shape[0]):
            logits_MC = _chunk_logits(hidden, weight, bias, first, last, ctx.dtype)
            grad_logits_MC = logits_MC.sub_(normaliser_M[:, None]).exp_()
            inside_M = (labels >= first) & (labels < last)
            column_M = (labels - first).clamp(0, last - first - 1)
            grad_logits_MC.scatter_add_(1, column_M[:, None], -inside_M[:, None].float())
            grad_logits_MC.mul_(grad_M[:, None])
            if grad_bias is not None:
                grad_bias[first:last] = grad_logits_MC.sum(0)
            product_MC = grad_logits_MC.to(ctx.dtype)
            grad_hidden += product_MC @ weight[first:last].to(ctx.dtype)
            if grad_weight is not None:
                grad_weight[first:last] = product_MC.t() @ cast
        return grad_hidden.to(hidden.dtype), grad_weight, grad_bias, None, None
