"""Word, position and token-type embeddings, summed.

Suffixes: T tokens, D features, B sequences, L padded length.
"""

import torch
from torch import Tensor, nn

from xlmrxl_train.model.configuration import XLMRobertaXLConfig
from xlmrxl_train.model.layers import Dropout, Embedding
from xlmrxl_train.model.packed import PackedSequences


class XLMRobertaXLEmbeddings(nn.Module):
    """Look up and add; no layer norm follows in this architecture."""

    def __init__(self, config: XLMRobertaXLConfig) -> None:
        super().__init__()
        size, padding = config.hidden_size, config.pad_token_id
        self.word_embeddings: nn.Module = Embedding(config.vocab_size, size, padding_idx=padding)
        self.token_type_embeddings = Embedding(config.type_vocab_size, size)
        self.position_embeddings = Embedding(config.max_position_embeddings, size, padding_idx=padding)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        input_ids_T: Tensor | None,
        position_ids_T: Tensor,
        token_type_ids_T: Tensor | None = None,
        inputs_embeds_TD: Tensor | None = None,
    ) -> Tensor:
        """Return [T, D] in the embeddings' dtype."""
        words_TD = self.word_embeddings(input_ids_T) if inputs_embeds_TD is None else inputs_embeds_TD
        if token_type_ids_T is None:
            # One row, broadcast: its gradient is a sum instead of T additions to the same row.
            token_type_ids_T = torch.zeros(1, dtype=torch.long, device=words_TD.device)
        summed_TD = words_TD + self.token_type_embeddings(token_type_ids_T)
        embedded_TD: Tensor = self.dropout(summed_TD + self.position_embeddings(position_ids_T))
        return embedded_TD


def padded_position_ids(input_ids_BL: Tensor, pad_token_id: int, past_B: Tensor | None = None) -> Tensor:
    """Number the tokens that are not padding from `pad_token_id` + 1; padding gets `pad_token_id`.

    Args:
        input_ids_BL: Token ids.
        pad_token_id: The padding token, found by its id and not by the attention mask.
        past_B: Such tokens that a cache already holds.

    Source: fairseq utils.make_positions; transformers' create_position_ids_from_input_ids.
    """
    real_BL = input_ids_BL.ne(pad_token_id).long()
    count_BL = real_BL.cumsum(1)
    if past_B is not None:
        count_BL = count_BL + past_B[:, None]
    return count_BL * real_BL + pad_token_id


def packed_position_ids(input_ids_T: Tensor, sequences: PackedSequences, pad_token_id: int) -> Tensor:
    """Do the same for a packed batch."""
    real_T = input_ids_T.ne(pad_token_id).long()
    count_T = real_T.cumsum(0)
    first_B = sequences.first_tokens.long()
    before_B = count_T[first_B] - real_T[first_B]
    return (count_T - before_B[sequences.sequence_of_token()]) * real_T + pad_token_id
