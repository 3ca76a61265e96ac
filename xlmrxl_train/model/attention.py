"""Attention backends by name: each takes packed queries, keys and values and returns packed output.

Suffixes: T query tokens, S key tokens, D features of all heads, H heads, N sequences of a group, L query and K key
length of a group, B sequences.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from xlmrxl_train.errors import ConfigError
from xlmrxl_train.model.configuration import ATTENTION_BACKENDS
from xlmrxl_train.model.grouped import BlockPlan, grouped_attention
from xlmrxl_train.model.layers import dropout
from xlmrxl_train.model.packed import LengthGroup, PackedSequences

_FLASH_HEAD_STEP, _FLASH_HEAD_MOST = 8, 256  # sizes of a head that FlashAttention 2 has kernels for


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AttentionLayout:
    """Say which keys each query may see; made once per forward call and shared by all layers."""

    backend: str
    queries: PackedSequences
    keys: PackedSequences
    biases: tuple[Tensor | None, ...]
    """Per group [N or 1, 1, L or 1, K] float32, 0 or -inf; None where nothing is hidden."""
    causal: bool

    def to(self, device: torch.device) -> "AttentionLayout":
        """Return a copy whose tensors are on `device`."""
        queries = self.queries.to(device)
        return AttentionLayout(
            backend=self.backend,
            queries=queries,
            keys=queries if self.keys is self.queries else self.keys.to(device),
            biases=tuple(None if bias is None else bias.to(device) for bias in self.biases),
            causal=self.causal,
        )


def make_layout(
    backend: str, queries: PackedSequences, keys: PackedSequences | None = None, *, causal: bool = False
) -> AttentionLayout:
    """Plan attention of `queries` over `keys` (None: over themselves).

    Args:
        backend: A name from `ATTENTION_BACKENDS`, not "auto".
        queries: The packed batch.
        keys: Another packed batch of as many sequences, in the same order.
        causal: Query j of a sequence sees the keys up to number j + (its keys - its queries).
    """
    itself = keys is None
    if backend != "grouped":
        queries = queries.one_group()
    if keys is None:
        keys = queries
    elif not keys.cut_as(queries):
        keys = PackedSequences.from_lengths(keys.lengths, like=queries).to(keys.offsets.device, non_blocking=True)
    biases: tuple[Tensor | None, ...]
    if not causal:
        biases = tuple(group.key_bias for group in keys.groups)
    elif itself:
        device = queries.offsets.device
        biases = tuple(_causal_bias(group.max_length, device) for group in queries.groups)
    else:
        biases = _shifted_causal_biases(queries, keys)
    return AttentionLayout(backend=backend, queries=queries, keys=keys, biases=biases, causal=causal)


def _causal_bias(length: int, device: torch.device) -> Tensor:
    # Padding stands behind a sequence's tokens, so no token sees it: the triangle hides enough.
    return torch.full((1, 1, length, length), -torch.inf, device=device).triu_(1)


def _shifted_causal_biases(queries: PackedSequences, keys: PackedSequences) -> tuple[Tensor | None, ...]:
    biases: list[Tensor | None] = []
    device, first = queries.offsets.device, 0
    for query_group, key_group in zip(queries.groups, keys.groups, strict=True):
        members = queries.order[first : first + query_group.num_sequences]
        first += query_group.num_sequences
        past_N = torch.tensor([keys.lengths[index] - queries.lengths[index] for index in members], device=device)
        position_L = torch.arange(query_group.max_length, device=device)
        position_K = torch.arange(key_group.max_length, device=device)
        hidden_NLK = position_K > position_L[:, None] + past_N[:, None, None]
        bias_NLK = torch.zeros(hidden_NLK.shape, device=device).masked_fill_(hidden_NLK, -torch.inf)
        if key_group.key_bias is not None:
            bias_NLK = bias_NLK + key_group.key_bias[:, 0]
        biases.append(bias_NLK[:, None])
    return tuple(biases)


def choose_backend(name: str, device: torch.device, dtype: torch.dtype, head_size: int, *, wants_weights: bool) -> str:
    """Resolve "auto" and refuse a backend that cannot do what is asked. Dropout is never changed.

    Args:
        name: A name from `ATTENTION_BACKENDS`.
        device: Where the batch is.
        dtype: Of the queries.
        head_size: Features of a head.
        wants_weights: Attention weights are to be returned, which only "eager" can.

    Raises:
        ConfigError: Unknown name, or "varlen" where it cannot run.
    """
    if name not in ATTENTION_BACKENDS:
        raise ConfigError(
            f'attn_implementation must be one of {", ".join(ATTENTION_BACKENDS)}, got "{name}". '
            '"auto" picks per device.'
        )
    fault = _varlen_fault(device, dtype, head_size)
    if name == "varlen" and fault is not None:
        raise ConfigError(fault)
    if wants_weights:
        return "eager"
    if name == "auto":
        return "varlen" if fault is None else "grouped"
    return name


def _varlen_fault(device: torch.device, dtype: torch.dtype, head_size: int) -> str | None:
    prefix = 'attn_implementation="varlen" must '
    if device.type != "cuda":
        return f'{prefix}run on a CUDA device, got {device.type}. Use "auto", which takes "grouped" there.'
    if dtype not in (torch.bfloat16, torch.float16):
        return f'{prefix}have queries in bfloat16 or float16, got {str(dtype)[6:]}. Use "grouped" or "sdpa".'
    if head_size % _FLASH_HEAD_STEP or head_size > _FLASH_HEAD_MOST:
        return (
            f"{prefix}have heads of a multiple of {_FLASH_HEAD_STEP} features, at most {_FLASH_HEAD_MOST}, got "
            f'{head_size}. Use "grouped" or "sdpa".'
        )
    return None


def attend(
    query_TD: Tensor, key_SD: Tensor, value_SD: Tensor,
    layout: AttentionLayout, num_heads: int, dropout_p: float, weights: list[Tensor] | None,
) -> Tensor:  # fmt: skip
    """Return each query's mix of the values it may see, [T, D].

    Args:
        query_TD: Queries.
        key_SD: Keys.
        value_SD: Values.
        layout: Backend and who sees whom.
        num_heads: H.
        dropout_p: Dropout on attention probabilities; 0 in evaluation.
        weights: "eager" appends [B, H, L, K] float32 here.
    """
    if layout.backend == "grouped":
        plan = BlockPlan(queries=layout.queries, keys=layout.keys, biases=layout.biases, num_heads=num_heads)
        return grouped_attention(query_TD, key_SD, value_SD, plan, dropout_p)
    if layout.backend == "varlen":
        return _varlen(query_TD, key_SD, value_SD, layout, num_heads, dropout_p)
    query = _to_block(query_TD, layout.queries, num_heads)
    key = _to_block(key_SD, layout.keys, num_heads)
    value = _to_block(value_SD, layout.keys, num_heads)
    bias = layout.biases[0]
    if layout.backend == "sdpa":
        mask = None if bias is None else bias.to(query.dtype)
        output_NHLd = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout_p)
    else:
        output_NHLd = _eager(query, key, value, bias, dropout_p, weights)
    output = output_NHLd.transpose(1, 2).flatten(2).flatten(0, 1)
    places_T = layout.queries.places
    return output if places_T is None else output.index_select(0, places_T)


def _to_block(packed: Tensor, sequences: PackedSequences, num_heads: int) -> Tensor:
    group: LengthGroup = sequences.groups[0]
    rows = packed if sequences.rows is None else packed.index_select(0, sequences.rows)
    return rows.view(group.num_sequences, group.max_length, num_heads, -1).transpose(1, 2)


def _eager(
    query_NHLd: Tensor, key_NHKd: Tensor, value_NHKd: Tensor,
    bias: Tensor | None, dropout_p: float, weights: list[Tensor] | None,
) -> Tensor:  # fmt: skip
    """Compute everything in float32, step by step: the reference of the other backends."""
    with torch.autocast(query_NHLd.device.type, enabled=False):
        scores = query_NHLd.float() @ key_NHKd.float().transpose(2, 3) * query_NHLd.shape[-1] ** -0.5
        if bias is not None:
            scores = scores + bias
        probabilities = dropout(scores.softmax(-1), dropout_p)
        if weights is not None:
            weights.append(probabilities)
        return (probabilities @ value_NHKd.float()).to(query_NHLd.dtype)


def _varlen(
    query_TD: Tensor, key_SD: Tensor, value_SD: Tensor, layout: AttentionLayout, num_heads: int, dropout_p: float
) -> Tensor:  # fmt: skip
    """Attend without any padding, in one FlashAttention 2 kernel for all sequences.

    torch.nn.attention.varlen.varlen_attn calls the same operator, but sets dropout to 0 (torch 2.10 to 2.13).
    """
    split = (packed.view(packed.shape[0], num_heads, -1) for packed in (query_TD, key_SD, value_SD))
    output_THd: Tensor = torch.ops.aten._flash_attention_forward(
        *split, layout.queries.offsets, layout.keys.offsets, layout.queries.max_length,
        layout.keys.max_length, dropout_p, layout.causal, False,
    )[0]  # fmt: skip
    return output_THd.flatten(1)
