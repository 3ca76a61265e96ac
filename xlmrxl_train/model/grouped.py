"""Attention in blocks of similar length, with explicit products: the default where no fused kernel fits.

Suffixes: T query tokens, S key tokens, D features of all heads, H heads, d features of a head, N sequences of a group,
L query and K key length of a group, G = N * H, P rows of all blocks with their padding.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from xlmrxl_train.model.layers import keep_scale
from xlmrxl_train.model.packed import PackedSequences


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BlockPlan:
    """Queries and keys with equal cuts, and the bias of each pair of blocks."""

    queries: PackedSequences
    keys: PackedSequences
    biases: tuple[Tensor | None, ...]
    num_heads: int


def grouped_attention(query_TD: Tensor, key_SD: Tensor, value_SD: Tensor, plan: BlockPlan, dropout_p: float) -> Tensor:
    """Return attention's output [T, D]; softmax is in float32, products are in the inputs' dtype."""
    output: Tensor = _GroupedAttention.apply(query_TD, key_SD, value_SD, plan, dropout_p)  # type: ignore[no-untyped-call]
    return output


def _to_blocks(packed_TD: Tensor, sequences: PackedSequences, num_heads: int) -> list[Tensor]:
    """Copy [T, D] into one [G, L, d] per group; padding rows repeat a token."""
    rows_PD = packed_TD if sequences.rows is None else packed_TD.index_select(0, sequences.rows)
    return _split(rows_PD, sequences, num_heads)


def _split(rows_PD: Tensor, sequences: PackedSequences, num_heads: int) -> list[Tensor]:
    blocks = []
    for group in sequences.groups:
        block_NLHd = rows_PD[group.start : group.stop].view(group.num_sequences, group.max_length, num_heads, -1)
        blocks.append(block_NLHd.transpose(1, 2).flatten(0, 1))
    return blocks


def _from_blocks(blocks: list[Tensor], sequences: PackedSequences, num_heads: int) -> Tensor:
    """Copy one [G, L, d] per group back to [T, D], without the padding."""
    head_size = blocks[0].shape[-1]
    rows_PD = blocks[0].new_empty(sequences.groups[-1].stop, num_heads * head_size)
    for block, group in zip(blocks, sequences.groups, strict=True):
        block_NHLd = block.view(group.num_sequences, num_heads, group.max_length, head_size)
        target_NLHd = rows_PD[group.start : group.stop].view(
            group.num_sequences, group.max_length, num_heads, head_size
        )
        target_NLHd.copy_(block_NHLd.transpose(1, 2))
    return rows_PD if sequences.places is None else rows_PD.index_select(0, sequences.places)


def _scores(query: Tensor, key: Tensor, bias: Tensor | None, scale: float, num_heads: int) -> Tensor:
    """Return scale * Q K' + bias, [G, L, K]; the product writes over the bias instead of adding to a copy."""
    size, length, key_length = query.shape[0], query.shape[1], key.shape[1]
    if bias is None:
        return torch.baddbmm(query.new_empty(1, 1, 1), query, key.transpose(1, 2), beta=0.0, alpha=scale)
    scores = query.new_empty(size // num_heads, num_heads, length, key_length)
    scores.copy_(bias.expand_as(scores))
    return scores.view(size, length, key_length).baddbmm_(query, key.transpose(1, 2), alpha=scale)


class _GroupedAttention(torch.autograd.Function):
    """Written out, because autograd would keep float32 probabilities, scatter with atomic adds, and copy per group."""

    @staticmethod
    def forward(
        ctx: Any, query_TD: Tensor, key_SD: Tensor, value_SD: Tensor, plan: BlockPlan, dropout_p: float
    ) -> Tensor:
        heads = plan.num_heads
        scale = (query_TD.shape[1] // heads) ** -0.5
        queries = _to_blocks(query_TD, plan.queries, heads)
        keys = _to_blocks(key_SD, plan.keys, heads)
        values = _to_blocks(value_SD, plan.keys, heads)
        outputs, probabilities, kept = [], [], []
        for query, key, value, bias in zip(queries, keys, values, plan.biases, strict=True):
            scores = _scores(query, key, bias, scale, heads)
            probability = torch.softmax(scores, -1, dtype=torch.float32).to(value.dtype)
            probabilities.append(probability)
            if dropout_p > 0.0:
                probability = probability * keep_scale(probability, dropout_p)
                kept.append(probability)
            outputs.append(torch.bmm(probability, value))
        output_TD = _from_blocks(outputs, plan.queries, heads)
        ctx.save_for_backward(output_TD, *queries, *keys, *values, *probabilities, *kept)
        ctx.plan, ctx.scale = plan, scale
        return output_TD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output_TD: Tensor) -> tuple[Tensor | None, ...]:
        """With P the probabilities, M the dropout factors, A = P * M, O = A V:

        dV = A' dO, dA = dO V', dS = A * dA - P * rowsum(dO * O), dQ = dS K, dK = dS' Q.
        A dropped element has A = 0, so M itself need not be kept.
        """
        plan: BlockPlan = ctx.plan
        heads, num_groups = plan.num_heads, len(plan.biases)
        output_TD, *saved = ctx.saved_tensors
        parts = [saved[first : first + num_groups] for first in range(0, len(saved), num_groups)]
        queries, keys, values, probabilities = parts[:4]
        kept = parts[4] if len(parts) > 4 else probabilities
        delta_TH = (grad_output_TD.float() * output_TD).view(len(output_TD), heads, -1).sum(-1)
        deltas = _padded_blocks(delta_TH, plan.queries, heads)
        grad_outputs = _padded_blocks(grad_output_TD.to(output_TD.dtype), plan.queries, heads)
        grads: tuple[list[Tensor], ...] = ([], [], [])
        for index in range(num_groups):
            probability, applied, grad_output = probabilities[index], kept[index], grad_outputs[index]
            grads[2].append(torch.bmm(applied.transpose(1, 2), grad_output))
            grad_score = torch.bmm(grad_output, values[index].transpose(1, 2)).float()
            if applied is probability:
                grad_score.sub_(deltas[index]).mul_(probability)
            else:
                grad_score.mul_(applied).sub_(probability * deltas[index])
            grad_score = grad_score.to(probability.dtype)
            nothing = grad_score.new_empty(1, 1, 1)
            grads[0].append(torch.baddbmm(nothing, grad_score, keys[index], beta=0.0, alpha=ctx.scale))
            grads[1].append(
                torch.baddbmm(nothing, grad_score.transpose(1, 2), queries[index], beta=0.0, alpha=ctx.scale)
            )
        return (
            _from_blocks(grads[0], plan.queries, heads),
            _from_blocks(grads[1], plan.keys, heads),
            _from_blocks(grads[2], plan.keys, heads),
            None,
            None,
        )


def _padded_blocks(packed: Tensor, sequences: PackedSequences, num_heads: int) -> list[Tensor]:
    """Copy [T, …] into blocks whose padding rows are zero."""
    if sequences.rows is None:
        return _split(packed, sequences, num_heads)
    rows = packed.index_select(0, sequences.rows)
    if sequences.padding_rows is not None:
        rows.index_fill_(0, sequences.padding_rows, 0)
    return _split(rows, sequences, num_heads)
