"""From a word of the command line to an exported folder."""

from collections.abc import Iterator
from pathlib import Path

import torch

from xlmrxl_train.errors import ConfigError
from xlmrxl_train.inference.export.adapter_folder import adapter_of, copy_adapter
from xlmrxl_train.inference.export.card import write_card
from xlmrxl_train.inference.export.onnx_file import export_onnx
from xlmrxl_train.inference.export.transformers_folder import export_transformers
from xlmrxl_train.inference.model_folder import ModelFolder, new_folder, open_model_folder, whole_or_nothing

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def export(
    place: str, *, to: str, output: str | Path, dtype: str | None = None, licence: str | None = None
) -> Iterator[str]:
    """Export a model, yielding a line about each thing that was written.

    Args:
        place: A run folder, a folder or a Hub id.
        to: transformers, onnx or adapter.
        output: A new folder.
        dtype: bf16, fp16 or fp32; None keeps the file's (transformers), or takes fp32 (onnx).
        licence: Of the weights, for the card.

    Raises:
        ConfigError: The output is there already, the weights are quantized, ONNX is not installed, or there is no
            adapter.
        CheckpointError: The model cannot be read or written, or what was written is not the model.
    """
    source, target = open_model_folder(place), new_folder(str(output))
    if to == "adapter":
        source = adapter_of(source)
        with whole_or_nothing(target):
            copy_adapter(source, target)
            if source.run is not None:
                write_card(source, target, licence)
        yield f"written: {target}"
        yield from _card(source, target, licence)
        return
    if to == "onnx":
        if dtype not in (None, "fp32"):
            raise ConfigError(
                f"--dtype must be fp32 for ONNX, got {dtype}: onnxruntime lacks kernels for others. Leave it out."
            )
        with whole_or_nothing(target):
            lines = list(export_onnx(source, target))
        yield from lines
        return
    with whole_or_nothing(target):
        export_transformers(source, target, DTYPES[dtype] if dtype else None)
        if source.run is not None:
            write_card(source, target, licence)
    yield f"written: {target}, read back and equal"
    yield from _card(source, target, licence)


def _card(source: ModelFolder, target: Path, licence: str | None) -> Iterator[str]:
    if source.run is not None:
        yield f"written: {target / 'README.md'}"
    else:
        yield f"no model card: {source.path} does not belong to a finished run, which would say how it was trained"
