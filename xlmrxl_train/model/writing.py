"""Write a model's files: config.json, safetensors (one or several), index.

Tensors are asked for one at a time and streamed, so that a sharded or offloaded model can be written by rank 0
without ever being whole in memory.
"""

import json
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from xlmrxl_train.errors import CheckpointError

DEFAULT_SHARD_BYTES = 5e9
SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_DTYPE_NAMES = {
    torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_PIECE_BYTES = 2**26


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorEntry:
    """A tensor to be written; `read` is called when its turn comes and may gather it from other ranks."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    read: Callable[[], Tensor]

    @property
    def num_bytes(self) -> int:
        """Size in the file."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def write_checkpoint(
    folder: Path, config: dict[str, object], entries: Sequence[TensorEntry], max_shard_bytes: float
) -> None:
    """Write a model folder in the Hub's layout. Each file is complete or absent; config.json comes last.

    Raises:
        CheckpointError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shards = _cut(entries, max_shard_bytes)
        names = _shard_names(len(shards))
        for name, shard in zip(names, shards, strict=True):
            write_safetensors(folder / name, shard)
        if len(shards) > 1:
            weight_map = {entry.name: name for name, shard in zip(names, shards, strict=True) for entry in shard}
            total = sum(entry.num_bytes for entry in entries)
            index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
            _write_text(folder / INDEX_FILE, json.dumps(index, indent=2) + "\n")
        _remove_stale(folder, {*names, INDEX_FILE} if len(shards) > 1 else set(names))
    except OSError as error:
        raise unwritable(folder, error) from error
    write_config(folder, config)


def write_config(folder: Path, config: dict[str, object]) -> None:
    """Write config.json.

    Raises:
        CheckpointError: The folder cannot be written.
    """
    try:
        _write_text(folder / "config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise unwritable(folder, error) from error


def unwritable(folder: Path, error: OSError) -> CheckpointError:
    """Return what a user is told when a folder cannot be written."""
    return CheckpointError(f"{folder} cannot be written: {error.strerror or error}. Check the path and the free space.")


def _cut(entries: Sequence[TensorEntry], max_shard_bytes: float) -> list[list[TensorEntry]]:
    shards: list[list[TensorEntry]] = [[]]
    size = 0
    for entry in entries:
        if shards[-1] and size + entry.num_bytes > max_shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(entry)
        size += entry.num_bytes
    return shards


def _shard_names(count: int) -> list[str]:
    if count == 1:
        return [SINGLE_FILE]
    return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]


def _remove_stale(folder: Path, current: set[str]) -> None:
    """Remove an older model's safetensors and index, which a reader would otherwise mix in or prefer."""
    for path in [*folder.glob("model-*-of-*.safetensors"), folder / SINGLE_FILE, folder / INDEX_FILE]:
        if path.name not in current:
            path.unlink(missing_ok=True)


def write_safetensors(path: Path, entries: Sequence[TensorEntry], **metadata: str) -> None:
    """Stream one file, with `metadata` beside the tensors.

    Format: 8 bytes of header length, a JSON header, the tensors' bytes.

    Source: https://github.com/huggingface/safetensors, README, section Format.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt", **metadata}}
    start = 0
    for entry in entries:
        stop = start + entry.num_bytes
        header[entry.name] = {"dtype": _DTYPE_NAMES[entry.dtype], "shape": entry.shape, "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for entry in entries:
                tensor = entry.read().detach()
                assert tuple(tensor.shape) == entry.shape and tensor.dtype == entry.dtype, entry.name
                data = tensor.cpu().contiguous().reshape(-1).view(torch.uint8)
                for piece in data.split(_PIECE_BYTES):
                    file.write(piece.numpy().data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
