"""The models for sentences, choices, tokens and spans.

Suffixes: T packed tokens, B sequences, E examples, C classes or choices, L padded length, D features.
"""

from typing import ClassVar

import torch
from torch import Tensor

from xlmrxl_train.errors import ConfigError, DataError
from xlmrxl_train.model.base import EncoderInputs, PackedInputs, XLMRobertaXLModel, pack_inputs
from xlmrxl_train.model.configuration import XLMRobertaXLConfig
from xlmrxl_train.model.heads import ClassificationHead, head_dropout
from xlmrxl_train.model.layers import Dropout, Linear
from xlmrxl_train.model.losses import IGNORE_INDEX, LossSum, classification_loss, cross_entropy_sum
from xlmrxl_train.model.outputs import ModelOutput
from xlmrxl_train.model.packed import PackedSequences
from xlmrxl_train.model.pretrained import PreTrained, initialize


def encode(
    encoder: XLMRobertaXLModel, inputs: PackedInputs, output_hidden_states: bool, output_attentions: bool,
    *, first_tokens_only: bool = False,
) -> ModelOutput:  # fmt: skip
    """Run the encoder on packed inputs: its last_hidden_state stays packed, what users see is in their shape."""
    packed = inputs.encoder
    output: ModelOutput = encoder(
        input_ids=packed.input_ids, token_type_ids=packed.token_type_ids, position_ids=packed.position_ids,
        inputs_embeds=packed.inputs_embeds, encoder_hidden_states=packed.encoder_hidden_states,
        past_key_values=packed.past_key_values, use_cache=packed.past_key_values is not None,
        output_hidden_states=output_hidden_states, output_attentions=output_attentions,
        sequences=inputs.sequences, encoder_sequences=packed.encoder_sequences, first_tokens_only=first_tokens_only,
    )  # fmt: skip
    states_TD, output.last_hidden_state = output.last_hidden_state, None
    inputs.unpack_output(output)
    output.last_hidden_state = states_TD
    return output


def finish(output: ModelOutput, loss: LossSum | None) -> ModelOutput:
    """Enter the loss sum, the target count and their quotient."""
    if loss is not None:
        output.loss_sum, output.num_targets = loss
        output.loss = output.loss_sum / output.num_targets
    return output


class _TaskModel(PreTrained):
    """An encoder and the part of forward that all task heads share."""

    head_modules: ClassVar[tuple[str, ...]] = ("classifier",)
    head_is_of_its_kind: ClassVar[bool] = True
    reads_first_tokens: ClassVar[bool] = False  # then the states are those of each sequence's first token, [B, D]

    def __init__(self, config: XLMRobertaXLConfig, *, add_pooling_layer: bool = False) -> None:
        super().__init__(config)
        self.roberta = XLMRobertaXLModel(config, add_pooling_layer=add_pooling_layer)

    def _encode(
        self, arguments: EncoderInputs, output_hidden_states: bool, output_attentions: bool
    ) -> tuple[PackedInputs, ModelOutput, Tensor]:
        inputs = pack_inputs(arguments, self.config)
        first = self.reads_first_tokens and not (output_hidden_states or output_attentions or self.config.is_decoder)
        output = encode(self.roberta, inputs, output_hidden_states, output_attentions, first_tokens_only=first)
        states_TD = output.last_hidden_state
        assert states_TD is not None
        if self.reads_first_tokens and not first:
            states_TD = states_TD.index_select(0, inputs.sequences.first_tokens)
        output.last_hidden_state = None
        return inputs, output, states_TD


class XLMRobertaXLForSequenceClassification(_TaskModel):
    """Classify, tag with several labels, or score whole sequences, by `problem_type`."""

    head_has_labels: ClassVar[bool] = True
    reads_first_tokens: ClassVar[bool] = True

    def __init__(self, config: XLMRobertaXLConfig) -> None:
        super().__init__(config)
        self.classifier = ClassificationHead(config)
        initialize(self.classifier, config.initializer_range)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        return_dict: bool = True,
        sequences: PackedSequences | None = None,
    ) -> ModelOutput:
        """Return logits [B, C]. Arguments not named here are `XLMRobertaXLModel.forward`'s.

        Args:
            labels: [B] int64 (-100: no target), or [B] or [B, C] floats (NaN: no target).
        """
        arguments = EncoderInputs(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids,
            position_ids=position_ids, inputs_embeds=inputs_embeds, sequences=sequences,
        )  # fmt: skip
        _, output, first_BD = self._encode(arguments, output_hidden_states, output_attentions)
        output.logits = logits_BC = self.classifier(first_BD)
        if labels is None:
            return output
        config = self.config
        return finish(output, classification_loss(logits_BC, labels, config.problem_type, config.class_weights))


class XLMRobertaXLForMultipleChoice(_TaskModel):
    """Score each choice of an example by its own sequence."""

    reads_first_tokens: ClassVar[bool] = True

    head_modules: ClassVar[tuple[str, ...]] = ("roberta.pooler", "classifier")

    def __init__(self, config: XLMRobertaXLConfig) -> None:
        super().__init__(config, add_pooling_layer=True)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.classifier = Linear(config.hidden_size, 1)
        initialize(self.classifier, config.initializer_range)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        return_dict: bool = True,
        sequences: PackedSequences | None = None,
        num_choices: int | None = None,
        choice_index: Tensor | None = None,
    ) -> ModelOutput:
        """Return logits [E, C]. Padded tensors are [E, C, L]; packed ones [T].

        Args:
            labels: [E] int64, the right choice; -100: no target.
            num_choices: Packed calls: sequences e * C to e * C + C - 1 are example e's choices, in order.
            choice_index: Packed calls, instead: [E, C] int64, the sequence of each choice, for sorted sequences;
                -1 where an example has fewer choices than others, whose logit is then the most negative number.
        """
        if sequences is None:
            given = input_ids if input_ids is not None else inputs_embeds
            num_choices = given.shape[1] if given is not None else None
        elif num_choices is None and choice_index is None:
            raise DataError("num_choices or choice_index must be given with sequences, got neither. Pass one of them.")
        arguments = EncoderInputs(
            input_ids=_flatten(input_ids, sequences), attention_mask=_flatten(attention_mask, sequences),
            token_type_ids=_flatten(token_type_ids, sequences), position_ids=_flatten(position_ids, sequences),
            inputs_embeds=_flatten(inputs_embeds, sequences), sequences=sequences,
        )  # fmt: skip
        _, output, _ = self._encode(arguments, output_hidden_states, output_attentions)
        assert output.pooler_output is not None
        scores_B = self.classifier(self.dropout(output.pooler_output)).squeeze(1)
        output.pooler_output = None
        if choice_index is None:
            output.logits = scores_B.view(-1, num_choices or 1)
        else:
            absent_EC = choice_index < 0
            lowest = torch.finfo(scores_B.dtype).min
            output.logits = scores_B[choice_index.masked_fill(absent_EC, 0)].masked_fill(absent_EC, lowest)
        return finish(output, None if labels is None else cross_entropy_sum(output.logits, labels))


def _flatten(values: Tensor | None, sequences: PackedSequences | None) -> Tensor | None:
    return values if values is None or sequences is not None else values.flatten(0, 1)


class XLMRobertaXLForTokenClassification(_TaskModel):
    """Classify every token."""

    head_has_labels: ClassVar[bool] = True

    def __init__(self, config: XLMRobertaXLConfig) -> None:
        super().__init__(config)
        self.dropout = Dropout(head_dropout(config))
        self.classifier = Linear(config.hidden_size, config.num_labels)
        initialize(self.classifier, config.initializer_range)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        return_dict: bool = True,
        sequences: PackedSequences | None = None,
    ) -> ModelOutput:
        """Return logits [B, L, C] or packed [T, C]. Arguments not named here are `XLMRobertaXLModel.forward`'s.

        Args:
            labels: As input_ids, -100: no target; padding has none.
        """
        arguments = EncoderInputs(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids,
            position_ids=position_ids, inputs_embeds=inputs_embeds, sequences=sequences,
        )  # fmt: skip
        inputs, output, states_TD = self._encode(arguments, output_hidden_states, output_attentions)
        logits_TC = self.classifier(self.dropout(states_TD))
        output.logits = inputs.unpack(logits_TC)
        labels_T = inputs.pack(labels)
        loss = None if labels_T is None else cross_entropy_sum(logits_TC, labels_T, self.config.class_weights)
        return finish(output, loss)


class XLMRobertaXLForQuestionAnswering(_TaskModel):
    """Find where an answer starts and ends.

    Raises:
        ConfigError: num_labels is not 2.
    """

    head_modules: ClassVar[tuple[str, ...]] = ("qa_outputs",)

    def __init__(self, config: XLMRobertaXLConfig) -> None:
        if config.num_labels != 2:
            raise ConfigError(
                f"num_labels must be 2 for question answering (start and end), got {config.num_labels}. "
                "Pass num_labels=2 when loading another task's model."
            )
        super().__init__(config)
        self.qa_outputs = Linear(config.hidden_size, config.num_labels)
        initialize(self.qa_outputs, config.initializer_range)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        return_dict: bool = True,
        sequences: PackedSequences | None = None,
    ) -> ModelOutput:
        """Return start_logits and end_logits, [B, L] or packed [T]; the most negative number at padding.

        The loss is over the positions of each sequence; the Hub's also sums over padding. Its mean is
        (start + end) / 2, as the Hub's.

        Args:
            start_positions: [B] int64, counted in the padded row, or packed from each sequence's first token.
                Positions outside the sequence, as -100, are left out.
            end_positions: The same.
        """
        arguments = EncoderInputs(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids,
            position_ids=position_ids, inputs_embeds=inputs_embeds, sequences=sequences,
        )  # fmt: skip
        inputs, output, states_TD = self._encode(arguments, output_hidden_states, output_attentions)
        logits_T2 = self.qa_outputs(states_TD)
        lowest = torch.finfo(logits_T2.dtype).min
        output.start_logits = inputs.unpack(logits_T2[:, 0], lowest)
        output.end_logits = inputs.unpack(logits_T2[:, 1], lowest)
        if start_positions is None or end_positions is None:
            return output
        start_sum, num_starts = _span_loss(logits_T2[:, 0], start_positions, inputs)
        end_sum, num_ends = _span_loss(logits_T2[:, 1], end_positions, inputs)
        return finish(output, ((start_sum + end_sum) / 2, (num_starts + num_ends) / 2))


def _span_loss(logits_T: Tensor, positions_B: Tensor, inputs: PackedInputs) -> LossSum:
    sequences = inputs.sequences
    lengths_B = sequences.offsets.diff()
    positions_B = positions_B.flatten().long()
    padded = None if inputs.padding is None else inputs.padding.position_in_sequence()
    if padded is not None:
        index_BL, real_BL = padded
        inside_B = (positions_B >= 0) & (positions_B < index_BL.shape[1])
        column_B1 = positions_B.clamp(0, index_BL.shape[1] - 1)[:, None]
        inside_B = inside_B & real_BL.gather(1, column_B1)[:, 0]
        positions_B = index_BL.gather(1, column_B1)[:, 0].masked_fill(~inside_B, IGNORE_INDEX)
    outside_B = (positions_B < 0) | (positions_B >= lengths_B)
    logits_BL = sequences.to_padded(logits_T.float(), -torch.inf)
    return cross_entropy_sum(logits_BL, positions_B.masked_fill(outside_B, IGNORE_INDEX))
