"""A checkpoint's weights as the entries of a model's files."""

from functools import partial
from pathlib import Path

import torch

from xlmrxl_train.model.writing import TensorEntry
from xlmrxl_train.parallel.tensor_files import read_index, read_tensor
from xlmrxl_train.training.checkpoint import TENSORS


def weights_in(checkpoint: Path) -> list[TensorEntry]:
    """Return every weight of a checkpoint, to be read when its turn comes.

    Raises:
        CheckpointError: Its index is missing or damaged.
    """
    folder = checkpoint / TENSORS
    return [
        TensorEntry(
            name=name.removeprefix("model."),
            dtype=getattr(torch, entry["dtype"]),
            shape=tuple(entry["shape"]),
            read=partial(read_tensor, folder, entry),
        )
        for name, entry in read_index(folder).items()
        if name.startswith("model.")
    ]
