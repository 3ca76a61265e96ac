"""Sequences of token ids become one row of real tokens, without padding.

T: real tokens of all sequences together.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def pack(sequences: Sequence[Sequence[int] | NDArray[np.integer[Any]]], pad_id: int = 1) -> tuple[Tensor, Tensor]:
    """Lay sequences end to end.

    Args:
        sequences: Token ids of each sequence, special tokens included; an empty list gives empty tensors.
        pad_id: Positions start at pad_id + 1 in every sequence, as XLM-R counts them.

    Returns:
        input_ids_T and position_ids_T, both int64.
    """
    lengths = np.fromiter((len(sequence) for sequence in sequences), dtype=np.int64, count=len(sequences))
    input_ids_T = np.empty(lengths.sum(), dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    for start, length, sequence in zip(starts, lengths, sequences, strict=True):
        input_ids_T[start : start + length] = sequence
    position_ids_T = np.arange(len(input_ids_T)) - np.repeat(starts, lengths) + pad_id + 1
    return torch.from_numpy(input_ids_T), torch.from_numpy(position_ids_T)
