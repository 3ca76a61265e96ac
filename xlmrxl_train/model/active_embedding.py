"""A word embedding of which only some rows are trained.

A row that no training batch reads has no gradient, so without weight decay no step moves it. Kept apart, it needs
neither gradient nor moments, and is not gathered where an engine divides the model.

Suffixes: T tokens, D features.
"""

import torch
from torch import Tensor, nn

from xlmrxl_train.model.layers import Embedding


class ActiveEmbedding(nn.Module):
    """Two tables in place of one: in training the trained rows alone are looked up, in evaluation all.

    Attributes:
        rows: Token ids of the trained rows, ascending.
        other_rows: Those of the frozen ones, ascending.
    """

    def __init__(self, table: Embedding, rows: Tensor) -> None:
        """Divide a table, whose values do not count: it is on the meta device.

        Args:
            table: All rows.
            rows: Token ids of the trained ones, ascending, neither none nor all.
        """
        super().__init__()
        is_active = torch.zeros(table.num_embeddings, dtype=torch.bool)
        is_active[rows] = True
        self.rows, self.other_rows = rows, (~is_active).nonzero().squeeze(1)
        # Of each token: its number among the trained rows, or -1 minus that among the frozen ones. A plain attribute,
        # since a buffer would be on the meta device, and be sent around by DistributedDataParallel in each step.
        self._places = torch.where(is_active, is_active.cumsum(0) - 1, -(~is_active).cumsum(0))
        padding = None if table.padding_idx is None else int(self._places[table.padding_idx])
        size, device = table.embedding_dim, table.weight.device
        self.active = Embedding(
            len(rows), size, padding_idx=None if padding is None or padding < 0 else padding, device=device
        )
        self.frozen = Embedding(len(self.other_rows), size, device=device).requires_grad_(False)

    def forward(self, input_ids_T: Tensor) -> Tensor:
        """Return [T, D] in the trained rows' dtype.

        Raises:
            IndexError: In training, a token is not among the trained ones (on a GPU: an assertion of the device).
        """
        if self._places.device != input_ids_T.device:
            self._places = self._places.to(input_ids_T.device)
        places_T = self._places.index_select(0, input_ids_T)
        if self.training:
            words_TD: Tensor = self.active(places_T)
            return words_TD
        words_TD = self.active(places_T.clamp(min=0))
        others_TD = self.frozen((-1 - places_T).clamp(min=0)).to(words_TD.dtype)
        return torch.where((places_T < 0)[:, None], others_TD, words_TD)
