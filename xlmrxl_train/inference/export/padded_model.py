"""A model with the Hub's padded call and tensors alone, so that a compiler can follow every step of it.

The real tokens are packed inside: linear layers and norms see no padding. Python's plan of length groups cannot be
followed, so attention is over one padded block.

Suffixes: B sequences, L padded length, T real tokens, D features, H heads, d features of a head, E examples.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xlmrxl_train.model import (
    PreTrained,
    XLMRobertaXLForMaskedLM,
    XLMRobertaXLForMultipleChoice,
    XLMRobertaXLForQuestionAnswering,
    XLMRobertaXLForSequenceClassification,
    XLMRobertaXLForTokenClassification,
    XLMRobertaXLLayer,
    XLMRobertaXLModel,
)
from xlmrxl_train.model.embedding import padded_position_ids
from xlmrxl_train.model.encoder import SelfAttention

OUTPUTS: dict[type[PreTrained], tuple[str, ...]] = {
    XLMRobertaXLModel: ("last_hidden_state", "pooler_output"),
    XLMRobertaXLForMaskedLM: ("logits",),
    XLMRobertaXLForSequenceClassification: ("logits",),
    XLMRobertaXLForMultipleChoice: ("logits",),
    XLMRobertaXLForTokenClassification: ("logits",),
    XLMRobertaXLForQuestionAnswering: ("start_logits", "end_logits"),
}
"""What each model that can be followed returns. Decoders are none of them: their cache grows with each call."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Places:
    """Where the real tokens of a padded batch are."""

    batch_size: int
    length: int
    rows_T: Tensor
    bias_B11L: Tensor
    first_B: Tensor

    @classmethod
    def of(cls, mask_BL: Tensor, dtype: torch.dtype) -> "_Places":
        real_BL = mask_BL.bool()
        lengths_B = real_BL.long().sum(1)
        hidden = torch.zeros(real_BL.shape, dtype=dtype).masked_fill(~real_BL, torch.finfo(dtype).min)
        return cls(
            batch_size=mask_BL.shape[0],
            length=mask_BL.shape[1],
            rows_T=real_BL.flatten().nonzero().squeeze(1),
            bias_B11L=hidden[:, None, None],
            first_B=lengths_B.cumsum(0) - lengths_B,
        )

    def pack(self, padded: Tensor) -> Tensor:
        """Return [B, L, …] as [T, …]."""
        packed: Tensor = padded.flatten(0, 1).index_select(0, self.rows_T)
        return packed

    def unpack(self, packed: Tensor, fill: float = 0.0) -> Tensor:
        """Return [T, …] as [B, L, …], with `fill` at padding."""
        # In the values' dtype: ONNX's scatter takes no two.
        full = torch.full((self.batch_size * self.length, *packed.shape[1:]), fill, dtype=packed.dtype)
        padded: Tensor = full.index_copy(0, self.rows_T, packed).unflatten(0, (self.batch_size, self.length))
        return padded


class PaddedModel(nn.Module):
    """A public model, called with input_ids and attention_mask, that returns the tensors of `OUTPUTS`."""

    def __init__(self, model: PreTrained) -> None:
        super().__init__()
        assert type(model) in OUTPUTS and not model.config.is_decoder
        self.model = model
        encoder = model if isinstance(model, XLMRobertaXLModel) else model.get_submodule("roberta")
        assert isinstance(encoder, XLMRobertaXLModel)
        self.encoder = encoder

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of what forward returns."""
        if isinstance(self.model, XLMRobertaXLModel) and self.model.pooler is None:
            return ("last_hidden_state",)
        return OUTPUTS[type(self.model)]

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Take [B, L], or [E, C, L] of a multiple-choice model; return what the model's own padded call does."""
        model = self.model
        choices = input_ids.shape[1]
        if isinstance(model, XLMRobertaXLForMultipleChoice):
            input_ids, attention_mask = input_ids.flatten(0, 1), attention_mask.flatten(0, 1)
        places = _Places.of(attention_mask, self.encoder.dtype)
        states_TD = self._encode(input_ids, places)
        if isinstance(model, XLMRobertaXLForMaskedLM):
            return (places.unpack(model.lm_head(states_TD)),)
        if isinstance(model, XLMRobertaXLForTokenClassification):
            return (places.unpack(model.classifier(states_TD)),)
        if isinstance(model, XLMRobertaXLForQuestionAnswering):
            logits_T2 = model.qa_outputs(states_TD)
            lowest = torch.finfo(logits_T2.dtype).min
            return places.unpack(logits_T2[:, 0], lowest), places.unpack(logits_T2[:, 1], lowest)
        first_BD = states_TD.index_select(0, places.first_B)
        if isinstance(model, XLMRobertaXLForSequenceClassification):
            return (model.classifier(first_BD),)
        if isinstance(model, XLMRobertaXLForMultipleChoice):
            assert model.roberta.pooler is not None
            return (model.classifier(model.roberta.pooler(first_BD)).squeeze(1).unflatten(0, (-1, choices)),)
        pooler = self.encoder.pooler
        return (places.unpack(states_TD), *(() if pooler is None else (pooler(first_BD),)))

    def _encode(self, input_ids_BL: Tensor, places: _Places) -> Tensor:
        position_ids_BL = padded_position_ids(input_ids_BL, self.encoder.config.pad_token_id)
        hidden_TD = self.encoder.embeddings(places.pack(input_ids_BL), places.pack(position_ids_BL))
        for layer in self.encoder.encoder.layer:
            assert isinstance(layer, XLMRobertaXLLayer)
            hidden_TD = _run(layer, hidden_TD, places)
        normed_TD: Tensor = self.encoder.encoder.LayerNorm(hidden_TD).to(hidden_TD.dtype)
        return normed_TD


def _run(layer: XLMRobertaXLLayer, hidden_TD: Tensor, places: _Places) -> Tensor:
    attention = layer.attention
    assert isinstance(attention.self, SelfAttention)
    mixed_TD = _attend(attention.self, attention.self_attn_layer_norm(hidden_TD), places)
    hidden_TD = attention.output(mixed_TD, hidden_TD)
    output_TD: Tensor = layer.output(layer.intermediate(layer.LayerNorm(hidden_TD)), hidden_TD)
    return output_TD


def _attend(attention: SelfAttention, normed_TD: Tensor, places: _Places) -> Tensor:
    query, key, value = (
        places.unpack(project(normed_TD)).unflatten(2, (attention.num_attention_heads, -1)).transpose(1, 2)
        for project in (attention.query, attention.key, attention.value)
    )
    scores_BHLL = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5 + places.bias_B11L
    mixed_BHLd = scores_BHLL.softmax(-1) @ value
    return places.pack(mixed_BHLd.transpose(1, 2).flatten(2))
