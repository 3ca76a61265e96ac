"""From the Hub's padded call to a packed batch, and back.

Suffixes: B sequences, L padded length, T real tokens, D features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from xlmrxl_train.errors import DataError
from xlmrxl_train.model.packed import PackedSequences


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Padding:
    """Remember where the real tokens of a padded batch were."""

    batch_size: int
    length: int
    rows_T: Tensor | None
    """[T] int64: the real tokens among the B * L; None if all are real."""

    def pack(self, padded: Tensor) -> Tensor:
        """Return [B, L, …] as [T, …]."""
        flat: Tensor = padded.flatten(0, 1)
        return flat if self.rows_T is None else flat.index_select(0, self.rows_T)

    def unpack(self, packed: Tensor, fill: float = 0.0) -> Tensor:
        """Return [T, …] as [B, L, …] with `fill` at padding."""
        if self.rows_T is not None:
            full = packed.new_full((self.batch_size * self.length, *packed.shape[1:]), fill)
            packed = full.index_copy(0, self.rows_T, packed)
        padded: Tensor = packed.unflatten(0, (self.batch_size, self.length))
        return padded

    def position_in_sequence(self) -> tuple[Tensor, Tensor] | None:
        """Return for [B, L] the number of each real token in its sequence, and which are real; None if all are."""
        if self.rows_T is None:
            return None
        real = torch.zeros(self.batch_size * self.length, dtype=torch.long, device=self.rows_T.device)
        real_BL = real.index_fill_(0, self.rows_T, 1).view(self.batch_size, self.length)
        return (real_BL.cumsum(1) - 1).clamp(min=0), real_BL.bool()


def find_padding(
    batch_size: int, length: int, attention_mask_BL: Tensor | None, device: torch.device
) -> tuple[Padding, PackedSequences]:
    """Read which tokens are real. Waits for the device, as a padded call must.

    Args:
        batch_size: B.
        length: L.
        attention_mask_BL: 1 for real tokens; None if all are. A longer mask (of earlier, cached tokens too) is cut
            to its last L columns.
        device: Of the batch.

    Raises:
        DataError: The mask has another shape, or a row without any real token.
    """
    full = Padding(batch_size=batch_size, length=length, rows_T=None)
    if attention_mask_BL is None:
        return full, PackedSequences.from_lengths((length,) * batch_size).to(device)
    if attention_mask_BL.dim() != 2 or attention_mask_BL.shape[0] != batch_size or attention_mask_BL.shape[1] < length:
        raise DataError(
            f"attention_mask must have the shape of the input, ({batch_size}, {length}), "
            f"got {tuple(attention_mask_BL.shape)}. Give one 0 or 1 per token."
        )
    mask_BL = attention_mask_BL[:, -length:].bool()
    lengths = mask_BL.sum(1).tolist()
    sequences = PackedSequences.from_lengths(lengths).to(device)
    if min(lengths) == length:
        return full, sequences
    return Padding(batch_size=batch_size, length=length, rows_T=mask_BL.flatten().nonzero().squeeze(1)), sequences


def unpack_attention(weights_BHLK: Tensor, queries: Padding, keys: Padding) -> Tensor:
    """Move attention weights from positions within sequences to the padded batch's columns, 0 at padding."""
    for dim, padding in ((2, queries), (3, keys)):
        positions = padding.position_in_sequence()
        if positions is None:
            continue
        index_BL, real_BL = positions
        shape = [weights_BHLK.shape[0], 1, 1, 1]
        shape[dim] = padding.length
        sizes = list(weights_BHLK.shape)
        sizes[dim] = padding.length
        gathered = weights_BHLK.gather(dim, index_BL.view(shape).expand(sizes))
        weights_BHLK = gathered.masked_fill(~real_BL.view(shape), 0.0)
    return weights_BHLK
