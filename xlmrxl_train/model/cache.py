"""Keys and values of tokens that a decoder has already seen.

Suffixes: T new tokens, S all tokens so far, B sequences, D features.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from xlmrxl_train.model.packed import PackedSequences


class KeyValueCache:
    """Hold each layer's keys and values, packed: the tokens of one sequence lie side by side, without padding."""

    def __init__(self) -> None:
        self.lengths: tuple[int, ...] = ()
        self.num_positions_B: Tensor | None = None
        """[B] int64: tokens so far that are not the padding token; the next position id follows from it."""
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._cross: list[tuple[Tensor, Tensor]] = []
        self._merge_S: Tensor | None = None

    def get_seq_length(self) -> int:
        """Return the tokens of the longest sequence so far."""
        return max(self.lengths, default=0)

    def begin(self, new: PackedSequences) -> PackedSequences:
        """Announce a step's tokens, before any layer's `update`.

        Returns:
            Where each sequence's keys, old and new, will lie; grouped as `new` is.
        """
        device = new.offsets.device
        old_lengths = self.lengths or (0,) * new.num_sequences
        total = tuple(old + step for old, step in zip(old_lengths, new.lengths, strict=True))
        self._merge_S = None
        if self.lengths:
            pieces: list[Tensor] = []
            old_start, new_start = 0, sum(old_lengths)
            for old, step in zip(old_lengths, new.lengths, strict=True):
                pieces += [torch.arange(old_start, old_start + old), torch.arange(new_start, new_start + step)]
                old_start, new_start = old_start + old, new_start + step
            self._merge_S = torch.cat(pieces).to(device)
        self.lengths = total
        return PackedSequences.from_lengths(total, like=new).to(device)

    def update(self, layer: int, key_TD: Tensor, value_TD: Tensor) -> tuple[Tensor, Tensor]:
        """Append a step's keys and values; return all of them as [S, D]."""
        if self._merge_S is None:
            self._keys.append(key_TD)
            self._values.append(value_TD)
        else:
            self._keys[layer] = torch.cat([self._keys[layer], key_TD]).index_select(0, self._merge_S)
            self._values[layer] = torch.cat([self._values[layer], value_TD]).index_select(0, self._merge_S)
        return self._keys[layer], self._values[layer]

    def keep(self, sequences: Sequence[int]) -> None:
        """Forget all but some sequences, named by their numbers in ascending order; they are numbered anew."""
        assert not self._cross, "the encoder's states would have to be divided as well"
        starts = [sum(self.lengths[:index]) for index in sequences]
        pieces = [torch.arange(start, start + self.lengths[i]) for start, i in zip(starts, sequences, strict=True)]
        self.lengths = tuple(self.lengths[index] for index in sequences)
        if self.num_positions_B is not None:
            self.num_positions_B = self.num_positions_B[list(sequences)]
        if pieces and self._keys:
            rows = torch.cat(pieces).to(self._keys[0].device)
            self._keys = [keys.index_select(0, rows) for keys in self._keys]
            self._values = [values.index_select(0, rows) for values in self._values]

    def cross(self, layer: int) -> tuple[Tensor, Tensor] | None:
        """Return the keys and values of the encoder's states, if they were stored."""
        return self._cross[layer] if layer < len(self._cross) else None

    def store_cross(self, key_SD: Tensor, value_SD: Tensor) -> None:
        """Store the encoder's keys and values of the next layer."""
        self._cross.append((key_SD, value_SD))
