"""The encoder with embeddings and pooler, and the one way from a call's arguments to packed tokens.

Suffixes: T tokens, S tokens of the encoder's states (cross-attention), B sequences, L padded length, D features.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xlmrxl_train.errors import ConfigError, DataError
from xlmrxl_train.model.attention import choose_backend, make_layout
from xlmrxl_train.model.cache import KeyValueCache
from xlmrxl_train.model.configuration import XLMRobertaXLConfig
from xlmrxl_train.model.embedding import XLMRobertaXLEmbeddings, packed_position_ids, padded_position_ids
from xlmrxl_train.model.encoder import LayerContext, SelfAttention, XLMRobertaXLEncoder
from xlmrxl_train.model.layers import Linear, matmul_dtype
from xlmrxl_train.model.outputs import ModelOutput
from xlmrxl_train.model.packed import PackedSequences
from xlmrxl_train.model.padding import Padding, find_padding, unpack_attention
from xlmrxl_train.model.pretrained import PreTrained, initialize


@dataclass(kw_only=True, slots=True, eq=False)
class EncoderInputs:
    """The arguments of a forward call that the encoder takes; the names and meanings are the Hub's.

    With `sequences` the tensors are packed, [T] and [T, D]; without, padded, [B, L] and [B, L, D].
    """

    input_ids: Tensor | None = None
    attention_mask: Tensor | None = None
    token_type_ids: Tensor | None = None
    position_ids: Tensor | None = None
    inputs_embeds: Tensor | None = None
    encoder_hidden_states: Tensor | None = None
    encoder_attention_mask: Tensor | None = None
    past_key_values: KeyValueCache | None = None
    sequences: PackedSequences | None = None
    encoder_sequences: PackedSequences | None = None


@dataclass(kw_only=True, slots=True, eq=False)
class PackedInputs:
    """The same, packed; `padding` says how to return to the caller's shape (None: it was packed)."""

    encoder: EncoderInputs
    sequences: PackedSequences
    padding: Padding | None = None
    encoder_padding: Padding | None = None

    def pack(self, values: Tensor | None) -> Tensor | None:
        """Return the caller's [B, L, …] as [T, …]; packed callers' values as they are."""
        return values if values is None or self.padding is None else self.padding.pack(values)

    def unpack(self, packed: Tensor, fill: float = 0.0) -> Tensor:
        """Return [T, …] in the caller's shape."""
        return packed if self.padding is None else self.padding.unpack(packed, fill)

    def unpack_output(self, output: ModelOutput) -> ModelOutput:
        """Return the encoder's packed output in the caller's shape, in place."""
        padding = self.padding
        if padding is None:
            return output
        if output.last_hidden_state is not None:
            output.last_hidden_state = padding.unpack(output.last_hidden_state)
        if output.hidden_states is not None:
            output.hidden_states = tuple(padding.unpack(states) for states in output.hidden_states)
        if output.attentions is not None and output.past_key_values is None:
            output.attentions = tuple(unpack_attention(weights, padding, padding) for weights in output.attentions)
        if output.cross_attentions is not None and self.encoder_padding is not None:
            output.cross_attentions = tuple(
                unpack_attention(weights, padding, self.encoder_padding) for weights in output.cross_attentions
            )
        return output


def pack_inputs(inputs: EncoderInputs, config: XLMRobertaXLConfig) -> PackedInputs:
    """Bring a call's arguments to packed form; packed ones pass through.

    Raises:
        DataError: Not exactly one of input_ids and inputs_embeds, shapes that do not fit together, or a sequence
            longer than the position table.
    """
    given = inputs.input_ids if inputs.input_ids is not None else inputs.inputs_embeds
    if given is None or (inputs.input_ids is not None and inputs.inputs_embeds is not None):
        count = "none" if given is None else "both"
        raise DataError(f"exactly one of input_ids and inputs_embeds must be given, got {count}. Pass one of them.")
    if inputs.sequences is not None:
        if len(given) != inputs.sequences.num_tokens:
            raise DataError(
                f"a packed input must have the {inputs.sequences.num_tokens} tokens of its sequences, "
                f"got {len(given)}. Build sequences from the lengths of this batch."
            )
        _check_length(inputs, inputs.sequences, config)
        return PackedInputs(encoder=inputs, sequences=inputs.sequences)
    dims = 2 if inputs.input_ids is not None else 3
    if given.dim() != dims:
        raise DataError(
            f"a padded input must have {dims} dimensions, got {given.dim()}. "
            "Give (batch, length), or pass sequences= with a packed one."
        )
    return _pack_padded(inputs, given, config)


def _check_length(inputs: EncoderInputs, sequences: PackedSequences, config: XLMRobertaXLConfig) -> None:
    """Refuse what would read beyond the position table: on a GPU that is an assertion without a name."""
    past = 0 if inputs.past_key_values is None else inputs.past_key_values.get_seq_length()
    limit = config.max_position_embeddings - config.pad_token_id - 1
    if inputs.position_ids is None and past + sequences.max_length > limit:
        raise DataError(
            f"a sequence must have at most {limit} tokens, got {past + sequences.max_length}. Truncate or split it."
        )


def _pack_padded(inputs: EncoderInputs, given: Tensor, config: XLMRobertaXLConfig) -> PackedInputs:
    batch_size, length = given.shape[:2]
    pad_token_id = config.pad_token_id
    padding, sequences = find_padding(batch_size, length, inputs.attention_mask, given.device)
    if inputs.attention_mask is not None:  # without a mask, padding tokens count as tokens but not as positions
        _check_length(inputs, sequences, config)
    cache, position_ids = inputs.past_key_values, inputs.position_ids
    past_B = None if cache is None else cache.num_positions_B
    if inputs.input_ids is not None:
        counted_B = inputs.input_ids.ne(pad_token_id).sum(1)
        if position_ids is None:
            position_ids = padded_position_ids(inputs.input_ids, pad_token_id, past_B)
    else:
        counted_B = torch.full((batch_size,), length, device=given.device)
        if position_ids is None:
            position_ids = torch.arange(length, device=given.device).expand(batch_size, -1) + pad_token_id + 1
            position_ids = position_ids if past_B is None else position_ids + past_B[:, None]
    if cache is not None:
        cache.num_positions_B = counted_B if past_B is None else past_B + counted_B
    packed = EncoderInputs(
        input_ids=None if inputs.input_ids is None else padding.pack(inputs.input_ids),
        position_ids=padding.pack(position_ids.expand(batch_size, -1)),
        token_type_ids=None if inputs.token_type_ids is None else padding.pack(inputs.token_type_ids),
        inputs_embeds=None if inputs.inputs_embeds is None else padding.pack(inputs.inputs_embeds),
        past_key_values=cache,
        sequences=sequences,
    )
    encoder_padding = None
    if inputs.encoder_hidden_states is not None:
        states = inputs.encoder_hidden_states
        encoder_padding, packed.encoder_sequences = find_padding(
            states.shape[0], states.shape[1], inputs.encoder_attention_mask, states.device
        )
        packed.encoder_hidden_states = encoder_padding.pack(states)
    return PackedInputs(encoder=packed, sequences=sequences, padding=padding, encoder_padding=encoder_padding)


def _number_tokens(packed: EncoderInputs, sequences: PackedSequences, pad_token_id: int) -> Tensor:
    """Return the position ids [T] of a packed call that gave none."""
    ids_T = packed.input_ids
    if ids_T is None:  # padding cannot be told from embeddings: every token counts
        ids_T = torch.full((sequences.num_tokens,), pad_token_id + 1, device=sequences.offsets.device)
    return packed_position_ids(ids_T, sequences, pad_token_id)


class XLMRobertaXLPooler(nn.Module):
    """Dense and tanh on each sequence's first token."""

    def __init__(self, config: XLMRobertaXLConfig) -> None:
        super().__init__()
        self.dense: nn.Module = Linear(config.hidden_size, config.hidden_size)

    def forward(self, first_BD: Tensor) -> Tensor:
        """Return [B, D]."""
        return torch.tanh(self.dense(first_BD))


class XLMRobertaXLModel(PreTrained):
    """The bare model.

    Attributes:
        residual_dtype: Of the residual stream; None keeps the embedding's.
    """

    prefix: ClassVar[str] = ""
    head_modules: ClassVar[tuple[str, ...]] = ("pooler",)

    def __init__(self, config: XLMRobertaXLConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.embeddings = XLMRobertaXLEmbeddings(config)
        self.encoder = XLMRobertaXLEncoder(config)
        self.pooler = XLMRobertaXLPooler(config) if add_pooling_layer else None
        self.residual_dtype: torch.dtype | None = None
        initialize(self, config.initializer_range)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: KeyValueCache | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        return_dict: bool = True,
        sequences: PackedSequences | None = None,
        encoder_sequences: PackedSequences | None = None,
        first_tokens_only: bool = False,
        num_layers: int | None = None,
    ) -> ModelOutput:
        """Encode a padded batch as the Hub's model does, or with `sequences` a packed one.

        Args:
            input_ids: [B, L], or packed [T].
            attention_mask: [B, L], 1 for real tokens; None takes all as real. Padded calls only.
            token_type_ids: As input_ids; None is type 0.
            position_ids: As input_ids; None numbers the tokens that are not the padding token.
            inputs_embeds: [B, L, D] or [T, D] instead of input_ids.
            encoder_hidden_states: [B, S, D], or packed, of the model that cross-attention looks at.
            encoder_attention_mask: [B, S]. Padded calls only.
            past_key_values: The cache that the last call returned.
            use_cache: Return a cache; None takes the configuration's in decoders.
            output_hidden_states: Return every layer's states.
            output_attentions: Return attention weights (computed by "eager").
            return_dict: Ignored; the output always has names.
            sequences: Where a packed batch's sequences lie.
            encoder_sequences: The same of packed encoder states.
            first_tokens_only: The caller reads the first token of each sequence alone: the last layer computes no
                other, and last_hidden_state is [B, D]. Packed encoders that keep no cache, weights or states.
            num_layers: Stop after so many layers; last_hidden_state is then the last of these' output, without the
                final layer norm unless they are all. None: all.

        Returns:
            last_hidden_state and pooler_output, in the caller's shape; padding positions are zero.
        """
        if use_cache is None:
            use_cache = self.config.use_cache and sequences is None and not self.training
        if self.config.is_decoder and use_cache and past_key_values is None:
            past_key_values = KeyValueCache()
        inputs = pack_inputs(
            EncoderInputs(
                input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids,
                position_ids=position_ids, inputs_embeds=inputs_embeds,
                encoder_hidden_states=encoder_hidden_states, encoder_attention_mask=encoder_attention_mask,
                past_key_values=past_key_values, sequences=sequences, encoder_sequences=encoder_sequences,
            ),
            self.config,
        )  # fmt: skip
        packed = inputs.encoder
        position_ids_T = packed.position_ids
        if position_ids_T is None:
            position_ids_T = _number_tokens(packed, inputs.sequences, self.config.pad_token_id)
        hidden_TD = self.embeddings(packed.input_ids, position_ids_T, packed.token_type_ids, packed.inputs_embeds)
        hidden_TD = hidden_TD.to(self.residual_dtype or hidden_TD.dtype)
        context = self._context(hidden_TD, inputs, output_attentions=output_attentions)
        if first_tokens_only:
            assert inputs.padding is None and context.cache is None and not self.config.is_decoder
            queries = inputs.sequences.first_only()
            context.first_layout = make_layout(context.layout.backend, queries, context.layout.queries)
        states_TD, all_states = self.encoder(hidden_TD, context, keep_all=output_hidden_states, num_layers=num_layers)
        first_BD = states_TD if first_tokens_only else states_TD.index_select(0, inputs.sequences.first_tokens)
        output = ModelOutput(
            last_hidden_state=states_TD,
            pooler_output=None if self.pooler is None else self.pooler(first_BD),
            past_key_values=past_key_values,
            hidden_states=all_states,
            attentions=None if context.attentions is None else tuple(context.attentions),
            cross_attentions=tuple(context.cross_attentions) or None,
        )
        return inputs.unpack_output(output)

    def _context(self, hidden_TD: Tensor, inputs: PackedInputs, *, output_attentions: bool) -> LayerContext:
        """Choose the backend and plan attention once for all layers."""
        packed, sequences, config = inputs.encoder, inputs.sequences, self.config
        first_layer = self.encoder.get_submodule("layer.0.attention.self")
        assert isinstance(first_layer, SelfAttention)
        backend = choose_backend(
            self.attn_implementation, hidden_TD.device, matmul_dtype(first_layer.query, hidden_TD),
            config.hidden_size // config.num_attention_heads, wants_weights=output_attentions,
        )  # fmt: skip
        cache = packed.past_key_values
        if backend != "grouped":
            sequences = sequences.one_group()
        keys = None if cache is None else cache.begin(sequences)
        context = LayerContext(
            layout=make_layout(backend, sequences, keys, causal=config.is_decoder),
            cache=cache,
            attentions=[] if output_attentions else None,
        )
        if packed.encoder_hidden_states is not None and config.is_decoder:
            if not config.add_cross_attention:
                raise ConfigError(
                    "add_cross_attention must be true when encoder_hidden_states are given, got false. "
                    "Build the decoder with is_decoder=true and add_cross_attention=true."
                )
            if packed.encoder_sequences is None:
                raise DataError("encoder_sequences must be given with packed encoder_hidden_states, got none. Pass it.")
            context.encoder_states_SD = packed.encoder_hidden_states
            context.cross_layout = make_layout(backend, sequences, packed.encoder_sequences)
        return context
