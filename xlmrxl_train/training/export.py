"""A checkpoint's weights as the entries of a model's files."""

from functools import partial, reduce
from pathlib import Path
from typing import Any

import torch

from xlmrxl_train.model.writing import TensorEntry
from xlmrxl_train.parallel.tensor_files import read_index, read_pieces, read_tensor
from xlmrxl_train.training.checkpoint import TENSORS
from xlmrxl_train.training.vocabulary import ROWS


def weights_in(checkpoint: Path) -> list[TensorEntry]:
    """Return every weight of a checkpoint, to be read when its turn comes, in the widest of their dtypes.

    One dtype for all: readers take the folder's from its config.json, and frozen weights in float32 lose nothing.

    Raises:
        CheckpointError: Its index is missing or damaged.
    """
    folder = checkpoint / TENSORS
    index = {
        name.removeprefix("model."): entry for name, entry in read_index(folder).items() if name.startswith("model.")
    }
    tables = {name.removesuffix(f".{ROWS}"): index.pop(name) for name in list(index) if name.endswith(f".{ROWS}")}
    dtype = reduce(torch.promote_types, [getattr(torch, entry["dtype"]) for entry in index.values()])
    entries = []
    for name, entry in index.items():
        table, _, part = name.removesuffix(".weight").rpartition(".")
        read, shape = partial(read_tensor, folder, entry, dtype), tuple(entry["shape"])
        if table in tables and part == "frozen":
            continue
        if table in tables:
            name, frozen = f"{table}.weight", index[f"{table}.frozen.weight"]
            shape = (shape[0] + frozen["shape"][0], shape[1])
            read = partial(_read_table, folder, tables[table], entry, frozen, dtype)
        entries.append(TensorEntry(name=name, dtype=dtype, shape=shape, read=read))
    return entries


def _read_table(
    folder: Path, rows: dict[str, Any], trained: dict[str, Any], frozen: dict[str, Any], dtype: torch.dtype
) -> torch.Tensor:
    """Return an embedding whole of which only some rows are trained."""
    numbers = read_tensor(folder, rows, torch.int64)
    whole = torch.empty(trained["shape"][0] + frozen["shape"][0], trained["shape"][1], dtype=dtype)
    is_other = torch.ones(len(whole), dtype=torch.bool).index_fill_(0, numbers, False)
    for entry, rows_of in ((trained, numbers), (frozen, is_other.nonzero().squeeze(1))):
        for (first, column), values in read_pieces(folder, entry):
            height, width = values.shape
            whole.narrow(1, column, width).index_copy_(0, rows_of[first : first + height], values.to(dtype))
    return whole
