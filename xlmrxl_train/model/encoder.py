"""The pre-norm transformer blocks on packed tokens.

Suffixes: T tokens, S tokens of the encoder's states (cross-attention), D features.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from xlmrxl_train.model.attention import AttentionLayout, attend
from xlmrxl_train.model.cache import KeyValueCache
from xlmrxl_train.model.configuration import XLMRobertaXLConfig
from xlmrxl_train.model.layers import Dropout, LayerNorm, Linear, LinearBeforeGelu, matmul_dtype
from xlmrxl_train.model.recompute import Recompute


@dataclass(kw_only=True, slots=True, eq=False)
class LayerContext:
    """What all layers of one forward call share. Not a pytree: engines pass it on untouched."""

    layout: AttentionLayout
    cache: KeyValueCache | None = None
    encoder_states_SD: Tensor | None = None
    cross_layout: AttentionLayout | None = None
    attentions: list[Tensor] | None = None
    """"eager" appends each layer's weights here."""
    cross_attentions: list[Tensor] = field(default_factory=list)
    first_layout: AttentionLayout | None = None
    """Each sequence's first token over all of its tokens: the last layer computes these queries alone."""

    @property
    def first_tokens(self) -> Tensor | None:
        """[B] int32: the rows that the last layer computes, where it does not compute all."""
        return None if self.first_layout is None else self.first_layout.keys.first_tokens

    def to(self, device: torch.device) -> "LayerContext":
        """Return a copy for layers on another device; cache and lists of weights are shared with this one."""
        states_SD = self.encoder_states_SD
        return replace(
            self,
            layout=self.layout.to(device),
            encoder_states_SD=None if states_SD is None else states_SD.to(device),
            cross_layout=None if self.cross_layout is None else self.cross_layout.to(device),
            first_layout=None if self.first_layout is None else self.first_layout.to(device),
        )


class SelfAttention(nn.Module):
    """Queries, keys and values of the tokens themselves."""

    def __init__(self, config: XLMRobertaXLConfig, layer_index: int) -> None:
        super().__init__()
        self.num_attention_heads = config.num_attention_heads
        self.layer_index = layer_index
        self.query: nn.Module = Linear(config.hidden_size, config.hidden_size)
        self.key: nn.Module = Linear(config.hidden_size, config.hidden_size)
        self.value: nn.Module = Linear(config.hidden_size, config.hidden_size)
        self.dropout = Dropout(config.attention_probs_dropout_prob)

    def project(self, normed_TD: Tensor, first: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values; queries of the tokens `first` alone, if given."""
        normed_TD = normed_TD.to(matmul_dtype(self.query, normed_TD))  # once, not once per projection
        wanted = normed_TD if first is None else normed_TD.index_select(0, first)
        return self.query(wanted), self.key(normed_TD), self.value(normed_TD)

    def mix(self, query_TD: Tensor, key_SD: Tensor, value_SD: Tensor, context: LayerContext) -> Tensor:
        """Return [T, D] before the output projection, of what `project` returned."""
        if context.cache is not None:
            key_SD, value_SD = context.cache.update(self.layer_index, key_SD, value_SD)
        layout = context.first_layout or context.layout
        dropout_p = self.dropout.p if self.training else 0.0
        return attend(query_TD, key_SD, value_SD, layout, self.num_attention_heads, dropout_p, context.attentions)

    def forward(self, normed_TD: Tensor, context: LayerContext) -> Tensor:
        """Return [T, D] before the output projection."""
        return self.mix(*self.project(normed_TD, context.first_tokens), context)


class CrossAttention(SelfAttention):
    """Queries of the tokens, keys and values of another model's states."""

    def forward(self, normed_TD: Tensor, context: LayerContext) -> Tensor:
        """Return [T, D] before the output projection."""
        assert context.encoder_states_SD is not None and context.cross_layout is not None
        query_TD = self.query(normed_TD)
        stored = None if context.cache is None else context.cache.cross(self.layer_index)
        if stored is None:
            states_SD = context.encoder_states_SD
            states_SD = states_SD.to(matmul_dtype(self.key, states_SD))
            stored = self.key(states_SD), self.value(states_SD)
            if context.cache is not None:
                context.cache.store_cross(*stored)
        dropout_p = self.dropout.p if self.training else 0.0
        weights = None if context.attentions is None else context.cross_attentions
        return attend(query_TD, *stored, context.cross_layout, self.num_attention_heads, dropout_p, weights)


class AttentionOutput(nn.Module):
    """Projection, dropout, residual."""

    def __init__(self, config: XLMRobertaXLConfig) -> None:
        super().__init__()
        self.dense: nn.Module = Linear(config.hidden_size, config.hidden_size)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, mixed_TD: Tensor, residual_TD: Tensor) -> Tensor:
        """Return [T, D] in the residual's dtype."""
        return _add(residual_TD, self.dropout(self.dense(mixed_TD)))


class Attention(nn.Module):
    """Layer norm, attention, residual."""

    def __init__(self, config: XLMRobertaXLConfig, layer_index: int, *, cross: bool = False) -> None:
        super().__init__()
        self.self: nn.Module = (CrossAttention if cross else SelfAttention)(config, layer_index)
        self.output = AttentionOutput(config)
        self.self_attn_layer_norm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, hidden_states_TD: Tensor, context: LayerContext) -> Tensor:
        """Return [T, D]."""
        mixed_TD = self.self(self.self_attn_layer_norm(hidden_states_TD), context)
        return self.finish(mixed_TD, hidden_states_TD, context.first_tokens)

    def project(self, hidden_states_TD: Tensor, first: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of self-attention."""
        assert isinstance(self.self, SelfAttention)
        return self.self.project(self.self_attn_layer_norm(hidden_states_TD), first)

    def finish(self, mixed_TD: Tensor, hidden_states_TD: Tensor, first: Tensor | None) -> Tensor:
        """Return [T, D] from what attention mixed and the residual stream before it."""
        residual_TD = hidden_states_TD if first is None else hidden_states_TD.index_select(0, first)
        output_TD: Tensor = self.output(mixed_TD, residual_TD)
        return output_TD


class Intermediate(nn.Module):
    """The widening half of the feed-forward block."""

    def __init__(self, config: XLMRobertaXLConfig) -> None:
        super().__init__()
        self.dense: nn.Module = LinearBeforeGelu(config.hidden_size, config.intermediate_size)

    def forward(self, normed_TD: Tensor) -> Tensor:
        """Return the activations, [T, intermediate_size]."""
        if isinstance(self.dense, LinearBeforeGelu) and self.dense.may_prepack:
            activations: Tensor = self.dense(normed_TD, gelu=True)
            return activations
        normed_TD = normed_TD.to(matmul_dtype(self.dense, normed_TD))  # once, also where an adapter reads it too
        return functional.gelu(self.dense(normed_TD))


class Output(nn.Module):
    """The narrowing half and the residual; the Hub's model has no dropout here."""

    def __init__(self, config: XLMRobertaXLConfig) -> None:
        super().__init__()
        self.dense: nn.Module = Linear(config.intermediate_size, config.hidden_size)

    def forward(self, activations: Tensor, residual_TD: Tensor) -> Tensor:
        """Return [T, D] in the residual's dtype."""
        return _add(residual_TD, self.dense(activations))


def _add(residual_TD: Tensor, update_TD: Tensor) -> Tensor:
    """Add in the wider of the two dtypes and keep the residual's."""
    return (residual_TD + update_TD).to(residual_TD.dtype)


class XLMRobertaXLLayer(nn.Module):
    """One block: attention, cross-attention in some decoders, feed-forward. The unit of sharding and recomputation."""

    def __init__(self, config: XLMRobertaXLConfig, layer_index: int) -> None:
        super().__init__()
        self.attention = Attention(config, layer_index)
        self.crossattention = Attention(config, layer_index, cross=True) if config.add_cross_attention else None
        self.intermediate = Intermediate(config)
        self.output = Output(config)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self._pieces: _Pieces | None = None

    def compile_for_training(self) -> None:
        """Compile what sees no more of a batch than its number of tokens: all layers and batches share the graphs.

        Attention's mixing stays as it is: its groups differ in number from batch to batch, and so would its graphs.
        """
        self._pieces = _Pieces(
            project=torch.compile(self.attention.project, dynamic=True),
            finish=torch.compile(self.attention.finish, dynamic=True),
            feed_forward=torch.compile(self.feed_forward, dynamic=True),
        )

    def feed_forward(self, hidden_states_TD: Tensor) -> Tensor:
        """Return [T, D]: norm, feed-forward, residual."""
        output_TD: Tensor = self.output(self.intermediate(self.LayerNorm(hidden_states_TD)), hidden_states_TD)
        return output_TD

    def forward(self, hidden_states_TD: Tensor, context: LayerContext) -> Tensor:
        """Return [T, D] in the dtype of the residual stream that came in."""
        pieces = self._pieces if self.training else None
        if pieces is None:
            hidden_states_TD = self.attention(hidden_states_TD, context)
        else:
            assert isinstance(self.attention.self, SelfAttention)
            projected = pieces.project(hidden_states_TD, context.first_tokens)
            mixed_TD = self.attention.self.mix(*projected, context)
            hidden_states_TD = pieces.finish(mixed_TD, hidden_states_TD, context.first_tokens)
        if self.crossattention is not None and context.encoder_states_SD is not None:
            hidden_states_TD = self.crossattention(hidden_states_TD, context)
        feed_forward = self.feed_forward if pieces is None else pieces.feed_forward
        return feed_forward(hidden_states_TD)


class _Pieces(NamedTuple):
    """A layer's functions, compiled."""

    project: Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor, Tensor]]
    finish: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    feed_forward: Callable[[Tensor], Tensor]


class XLMRobertaXLEncoder(nn.Module):
    """All blocks and the final layer norm.

    Attributes:
        recompute: none, full, every_<n> or selective; see `Recompute`.
    """

    def __init__(self, config: XLMRobertaXLConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList([XLMRobertaXLLayer(config, index) for index in range(config.num_hidden_layers)])
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self._recompute = Recompute("none")

    @property
    def recompute(self) -> str:
        """Which activations are computed again in backward."""
        return self._recompute.choice

    @recompute.setter
    def recompute(self, choice: str) -> None:
        self._recompute = Recompute(choice)

    def forward(
        self, hidden_states_TD: Tensor, context: LayerContext, *, keep_all: bool = False, num_layers: int | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """Run all layers, or the first `num_layers`, which no final layer norm follows.

        Returns:
            The final hidden states [T, D], and with `keep_all` the embedding's and every layer's. With
            `context.first_layout` those of each sequence's first token, [B, D].
        """
        kept = [hidden_states_TD]
        last_context = context
        if context.first_layout is not None:
            assert not keep_all and context.attentions is None
            context = replace(context, first_layout=None)
        stop = len(self.layer) if num_layers is None else num_layers
        for index, layer in enumerate(self.layer[:stop]):
            if index == len(self.layer) - 1:
                context = last_context
            hidden_states_TD = self._recompute.run(layer, index, hidden_states_TD, context)
            if keep_all:
                kept.append(hidden_states_TD)
        normed_TD = hidden_states_TD
        if stop == len(self.layer):
            normed_TD = self.LayerNorm(hidden_states_TD).to(hidden_states_TD.dtype)
        if not keep_all:
            return normed_TD, None
        return normed_TD, (*kept[:-1], normed_TD)
