"""Masked and causal language modelling.

Suffixes: T packed tokens, M rows that the head is applied to, V vocabulary, B sequences, L padded length.
"""

import logging
from typing import ClassVar

from torch import Tensor

from xlmrxl_train.model.base import EncoderInputs, PackedInputs, XLMRobertaXLModel, pack_inputs
from xlmrxl_train.model.cache import KeyValueCache
from xlmrxl_train.model.configuration import XLMRobertaXLConfig
from xlmrxl_train.model.heads import LMHead
from xlmrxl_train.model.losses import IGNORE_INDEX, cross_entropy_sum, shift_labels
from xlmrxl_train.model.outputs import ModelOutput
from xlmrxl_train.model.packed import PackedSequences
from xlmrxl_train.model.pretrained import PreTrained, initialize
from xlmrxl_train.model.tasks import encode, finish

logger = logging.getLogger(__name__)


class _LanguageModel(PreTrained):
    """An encoder with a vocabulary head."""

    head_modules: ClassVar[tuple[str, ...]] = ("lm_head",)
    causal: ClassVar[bool] = False

    def __init__(self, config: XLMRobertaXLConfig) -> None:
        super().__init__(config)
        self.roberta = XLMRobertaXLModel(config, add_pooling_layer=False)
        self.lm_head = LMHead(config)
        initialize(self.lm_head, config.initializer_range)
        self.tie_weights()

    def tied_weights(self) -> dict[str, str]:
        """Tie the bias always, and the output embedding to the input's unless the configuration says no."""
        tied = {"lm_head.decoder.bias": "lm_head.bias"}
        if self.config.tie_word_embeddings:
            tied["lm_head.decoder.weight"] = "roberta.embeddings.word_embeddings.weight"
        return tied

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values: KeyValueCache | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        return_dict: bool = True,
        sequences: PackedSequences | None = None,
        encoder_sequences: PackedSequences | None = None,
        rows: Tensor | None = None,
    ) -> ModelOutput:
        """Predict tokens. Arguments not named here are `XLMRobertaXLModel.forward`'s.

        Args:
            labels: As input_ids, -100 where there is no target. Targets at padding are left out (the Hub counts them
                unless they are -100). The causal model shifts them itself, never across sequences.
            rows: Packed calls: [M] int64, the only rows that the head is applied to. With labels, the rows whose
                target counts (every other row must have none; causal: after shifting); without, rows to predict.
                None with labels searches them, which makes a GPU wait once.

        Returns:
            Padded: logits [B, L, V], also with labels. Packed: logits [T, V] or [M, V]; with labels None, because the
            loss is computed in chunks of the vocabulary and no logits are ever whole; target_losses are there instead.
        """
        arguments = EncoderInputs(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids,
            position_ids=position_ids, inputs_embeds=inputs_embeds, encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask, past_key_values=past_key_values,
            sequences=sequences, encoder_sequences=encoder_sequences,
        )  # fmt: skip
        if use_cache is None and sequences is None and self.config.use_cache and not self.training and labels is None:
            use_cache = True
        if self.config.is_decoder and use_cache and past_key_values is None:
            arguments.past_key_values = KeyValueCache()
        inputs = pack_inputs(arguments, self.config)
        output = encode(self.roberta, inputs, output_hidden_states, output_attentions)
        hidden_TD = output.last_hidden_state
        assert hidden_TD is not None
        output.last_hidden_state = None
        return self.read_off(output, hidden_TD, inputs, self._labels(labels, inputs), rows)

    def read_off(
        self, output: ModelOutput, hidden_TD: Tensor, inputs: PackedInputs, labels_T: Tensor | None, rows: Tensor | None
    ) -> ModelOutput:
        """Enter logits or loss of packed states into `output`.

        Args:
            output: Of the encoder.
            hidden_TD: Its last states.
            inputs: What it was called with.
            labels_T: The token that each row predicts, -100: none. No longer shifted.
            rows: As in `forward`.
        """
        if inputs.padding is not None:
            logits_TV = self.lm_head(hidden_TD)
            output.logits = inputs.unpack(logits_TV)
            return finish(output, None if labels_T is None else cross_entropy_sum(logits_TV, labels_T))
        if labels_T is None:
            output.logits = self.lm_head(hidden_TD if rows is None else hidden_TD.index_select(0, rows))
            return output
        if rows is None:
            rows = labels_T.ne(IGNORE_INDEX).nonzero().squeeze(1)
        losses_M = self.lm_head(hidden_TD.index_select(0, rows), labels_T.index_select(0, rows).long())
        output.target_losses = losses_M.detach()
        return finish(output, (losses_M.sum(), losses_M.new_full((), float(len(rows)))))

    def _labels(self, labels: Tensor | None, inputs: PackedInputs) -> Tensor | None:
        labels_T = inputs.pack(labels)
        if labels_T is not None and self.causal:
            labels_T = shift_labels(labels_T, inputs.sequences.offsets)
        return labels_T


class XLMRobertaXLForMaskedLM(_LanguageModel):
    """Predict masked tokens."""


class XLMRobertaXLForCausalLM(_LanguageModel):
    """Predict next tokens; with `is_decoder` no token sees later ones."""

    causal: ClassVar[bool] = True

    def __init__(self, config: XLMRobertaXLConfig) -> None:
        super().__init__(config)
        if not config.is_decoder:
            logger.warning("XLMRobertaXLForCausalLM without is_decoder=true sees the tokens that it is to predict")
