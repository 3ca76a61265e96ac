"""A model as transformers' AutoModel classes read it: the Hub's layout, checked after it was written."""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from xlmrxl_train.errors import CheckpointError
from xlmrxl_train.inference.model_folder import ModelFolder, check_not_quantized
from xlmrxl_train.model import PreTrained
from xlmrxl_train.model.weights import CheckpointReader, match_weights, open_checkpoint
from xlmrxl_train.model.writing import TensorEntry


def export_transformers(source: ModelFolder, target: Path, dtype: torch.dtype | None = None) -> None:
    """Write config.json, safetensors and tokenizer, one tensor in memory at a time, and read them back.

    Args:
        source: What to write; its weights may lie in any format that `from_pretrained` reads.
        target: Made if missing.
        dtype: Of the weights; None keeps the file's.

    Raises:
        ConfigError: The weights are quantized.
        CheckpointError: A weight is missing, damaged, or not what was written; or the folder cannot be written.
    """
    check_not_quantized(source, "A folder for transformers")
    model, entries = entries_of(source, dtype)
    model.write_pretrained(target, entries)
    copy_tokenizer(source, target)
    check_written(target, model, entries)


def entries_of(source: ModelFolder, dtype: torch.dtype | None = None) -> tuple[PreTrained, list[TensorEntry]]:
    """Return a model on the meta device and its weights, to be read when their turn comes.

    Raises:
        CheckpointError: A weight is missing, unexpected or of another shape.
    """
    with torch.device("meta"):
        model = source.model_class(source.config)
    reader = open_checkpoint(source.path)
    stored, report = match_weights(
        model, reader, prefix=model.prefix, head_modules=model.head_modules, tied=model.tied_weights()
    )
    if report.new:
        raise CheckpointError(
            f"{source.path} must hold every weight of {source.model_class.__name__}, got none of "
            f"{', '.join(report.new)}. Train the head first, or name the class that the weights are of in config.json."
        )
    return model, [_entry(name, reader, stored[name], dtype) for name, _ in model.named_parameters()]


def _entry(name: str, reader: CheckpointReader, stored: str, dtype: torch.dtype | None) -> TensorEntry:
    wanted = dtype or reader.read(stored).dtype
    return TensorEntry(
        name=name, dtype=wanted, shape=reader.shapes[stored], read=partial(_read, reader, stored, wanted)
    )


def _read(reader: CheckpointReader, stored: str, dtype: torch.dtype) -> Tensor:
    return reader.read(stored).to(dtype)


def copy_tokenizer(source: ModelFolder, target: Path) -> None:
    """Copy the files that make the tokenizer.

    Raises:
        CheckpointError: They cannot be written.
    """
    try:
        for path in source.tokenizer_files:
            shutil.copyfile(path, target / path.name)
    except OSError as error:
        raise CheckpointError(
            f"{target} cannot be written: {error.strerror}. Check the path and the free space."
        ) from error


def check_written(folder: Path, model: PreTrained, entries: Sequence[TensorEntry]) -> None:
    """Read a folder back and compare every tensor with its source.

    Raises:
        CheckpointError: It names the first tensor that differs.
    """
    reader = open_checkpoint(folder)
    stored, _ = match_weights(
        model, reader, prefix=model.prefix, head_modules=model.head_modules, tied=model.tied_weights()
    )
    for entry in entries:
        if entry.name not in stored or not _same(reader.read(stored[entry.name]), entry.read()):
            raise CheckpointError(
                f"{folder} must hold what was exported, but {entry.name} differs. Check the disk, and export again."
            )


def _same(written: Tensor, source: Tensor) -> bool:
    """Compare bits, so that a NaN equals itself."""
    if written.dtype != source.dtype or written.shape != source.shape:
        return False
    left, right = (tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (written, source))
    return torch.equal(left, right)
