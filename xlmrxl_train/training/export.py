"""A checkpoint's weights as the entries of a model's files."""

from functools import partial, reduce
from pathlib import Path

import torch

from xlmrxl_train.model.writing import TensorEntry
from xlmrxl_train.parallel.tensor_files import read_index, read_tensor
from xlmrxl_train.training.checkpoint import TENSORS


def weights_in(checkpoint: Path) -> list[TensorEntry]:
    """Return every weight of a checkpoint, to be read when its turn comes, in the widest of their dtypes.

    One dtype for all: readers take the folder's from its config.json, and frozen weights in float32 lose nothing.

    Raises:
        CheckpointError: Its index is missing or damaged.
    """
    folder = checkpoint / TENSORS
    index = {name: entry for name, entry in read_index(folder).items() if name.startswith("model.")}
    dtype = reduce(torch.promote_types, [getattr(torch, entry["dtype"]) for entry in index.values()])
    return [
        TensorEntry(
            name=name.removeprefix("model."),
            dtype=dtype,
            shape=tuple(entry["shape"]),
            read=partial(read_tensor, folder, entry, dtype),
        )
        for name, entry in index.items()
    ]
