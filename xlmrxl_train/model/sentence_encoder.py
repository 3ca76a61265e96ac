"""Vectors of whole sentences: the states of one layer, averaged over tokens, or of the first token.

Suffixes: T packed tokens, B sequences, D features.
"""

import torch
from torch import Tensor

from xlmrxl_train.errors import ConfigError
from xlmrxl_train.model.base import EncoderInputs, XLMRobertaXLModel, pack_inputs
from xlmrxl_train.model.configuration import XLMRobertaXLConfig
from xlmrxl_train.model.outputs import ModelOutput
from xlmrxl_train.model.packed import PackedSequences
from xlmrxl_train.model.pretrained import PreTrained

POOLINGS = ("mean", "first")


class XLMRobertaXLSentenceEncoder(PreTrained):
    """The bare model, of which a layer's states are pooled; later layers are not computed."""

    def __init__(self, config: XLMRobertaXLConfig) -> None:
        super().__init__(config)
        self.roberta = XLMRobertaXLModel(config, add_pooling_layer=False)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        sequences: PackedSequences | None = None,
        layer: int | float | None = None,
        pooling: str = "mean",
    ) -> ModelOutput:
        """Return pooler_output [B, D] in float32. Arguments not named here are `XLMRobertaXLModel.forward`'s.

        Args:
            layer: 0: the embeddings; k: what layer k puts out, as the Hub's hidden_states[k]; 0.5: of the layer half
                way up; None: the last one's, after the final layer norm.
            pooling: mean: over all tokens, special ones included, as XTREME's retrieval tasks; first: of `<s>`.

        Raises:
            ConfigError: There is no such layer or pooling.
        """
        layer = number_of_layer(self.config, layer)
        if pooling not in POOLINGS:
            raise ConfigError(f"pooling must be {' | '.join(POOLINGS)}, got {pooling!r}.")
        arguments = EncoderInputs(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, sequences=sequences
        )
        inputs = pack_inputs(arguments, self.config)
        output: ModelOutput = self.roberta(
            input_ids=inputs.encoder.input_ids, position_ids=inputs.encoder.position_ids,
            sequences=inputs.sequences, num_layers=layer,
        )  # fmt: skip
        assert output.last_hidden_state is not None
        return ModelOutput(pooler_output=pooled(output.last_hidden_state, inputs.sequences, pooling))


def number_of_layer(config: XLMRobertaXLConfig, layer: int | float | None) -> int | None:
    """Return the number of a layer that may be given as a share of all, 0.5 for the one half way up; None: the last.

    Raises:
        ConfigError: There is no such layer.
    """
    last = config.num_hidden_layers
    if isinstance(layer, float):
        if not 0 <= layer <= 1:
            raise ConfigError(f"layer must be a share from 0.0 to 1.0, or a layer's number, got {layer}. Choose one.")
        layer = round(layer * last)
    if layer is not None and not 0 <= layer <= last:
        raise ConfigError(f"layer must be from 0 to {last}, the model's layers, got {layer}. Choose another.")
    return layer


def pooled(states_TD: Tensor, sequences: PackedSequences, pooling: str) -> Tensor:
    """Return one float32 vector per sequence, [B, D]."""
    if pooling == "first":
        return states_TD.index_select(0, sequences.first_tokens).float()
    lengths_B = sequences.offsets.diff()
    sums_BD = torch.zeros(len(lengths_B), states_TD.shape[1], device=states_TD.device)
    sums_BD.index_add_(0, sequences.sequence_of_token(), states_TD.float())
    return sums_BD / lengths_B[:, None]
