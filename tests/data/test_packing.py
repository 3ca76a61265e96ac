"""Packing loses no token and counts positions as XLM-R does."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from xlmrxl_train.data.packing import pack


@given(st.lists(st.lists(st.integers(0, 250_000), max_size=12), max_size=12), st.integers(0, 3))
def test_pack(sequences: list[list[int]], pad_id: int) -> None:
    input_ids, positions = pack(sequences, pad_id)
    assert input_ids.dtype == positions.dtype == torch.int64
    assert input_ids.tolist() == [id_ for sequence in sequences for id_ in sequence]
    assert positions.tolist() == [pad_id + 1 + i for sequence in sequences for i in range(len(sequence))]


def test_arrays_are_sequences_too() -> None:
    input_ids, positions = pack([np.array([0, 7, 2], dtype=np.int32), [0, 2]])
    assert input_ids.tolist() == [0, 7, 2, 0, 2] and positions.tolist() == [2, 3, 4, 2, 3]
