"""Tensors of all ranks in one folder, through torch.distributed.checkpoint, with nothing that executes on reading.

DCP writes its index as a pickle and reads objects that are not tensors with an unrestricted unpickler. Here the index
is JSON, which can only name tensors, and each tensor is read by torch.load(weights_only=True).
"""

import json
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.storage import WriteResult

from xlmrxl_train.errors import CheckpointError
from xlmrxl_train.parallel.world import World

INDEX = "index.json"


class _Writer(dcp.FileSystemWriter):
    """Writes tensors as DCP does, and `index.json` in place of a pickle."""

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Write where each piece of each tensor lies; called on rank 0 after all ranks have written."""
        pieces: dict[str, list[dict[str, Any]]] = defaultdict(list)
        sizes = {
            (name, tuple(chunk.offsets)): list(chunk.sizes)
            for name, tensor in metadata.state_dict_metadata.items()
            if isinstance(tensor, TensorStorageMetadata)
            for chunk in tensor.chunks
        }
        for result in (result for part in results for result in part):
            offset = tuple(result.index.offset or ())
            info = result.storage_data
            pieces[result.index.fqn].append(
                {
                    "offsets": list(offset),
                    "sizes": sizes[result.index.fqn, offset],
                    "file": info.relative_path,
                    "begin": info.offset,
                    "bytes": info.length,
                }
            )
        index = {
            name: {
                "dtype": str(tensor.properties.dtype).removeprefix("torch."),
                "shape": list(tensor.size),
                "pieces": pieces[name],
            }
            for name, tensor in metadata.state_dict_metadata.items()
            if isinstance(tensor, TensorStorageMetadata)
        }
        (Path(self.path) / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")


class _Reader(dcp.FileSystemReader):
    """Reads what `_Writer` wrote."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Turn `index.json` into what DCP wants to know."""
        tensors: dict[str, Any] = {}
        places = {}
        for name, entry in read_index(Path(self.path)).items():
            chunks = [ChunkStorageMetadata(torch.Size(p["offsets"]), torch.Size(p["sizes"])) for p in entry["pieces"]]
            properties = TensorProperties(dtype=getattr(torch, entry["dtype"]))
            tensors[name] = TensorStorageMetadata(properties, torch.Size(entry["shape"]), chunks)
            for piece in entry["pieces"]:
                place = _StorageInfo(Path(piece["file"]).name, piece["begin"], piece["bytes"])
                places[MetadataIndex(name, piece["offsets"])] = place
        return Metadata(tensors, planner_data={}, storage_data=places, storage_meta=StorageMeta(load_id=self.load_id))


def read_index(folder: Path) -> dict[str, Any]:
    """Return the index of a folder of tensors: name -> dtype, shape, pieces.

    Raises:
        CheckpointError: It is missing or not such an index.
    """
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        for entry in index.values():
            assert isinstance(getattr(torch, entry["dtype"]), torch.dtype)
            assert all(set(piece) == {"offsets", "sizes", "file", "begin", "bytes"} for piece in entry["pieces"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise CheckpointError(
            f"{folder / INDEX} must list the tensors of a checkpoint, got {error}. Use another checkpoint."
        ) from None
    return index  # type: ignore[no-any-return]


def save_tensors(folder: Path, tensors: dict[str, torch.Tensor], world: World) -> None:
    """Write every rank's part of `tensors` into `folder`; equal tensors of several ranks are written once."""
    with _without_single_process_warning():
        dcp.save(dict(tensors), storage_writer=_Writer(folder), no_dist=world.size == 1)


def load_tensors(folder: Path, tensors: dict[str, torch.Tensor], world: World) -> None:
    """Fill `tensors` in place from `folder`, whatever number of ranks wrote it.

    Raises:
        CheckpointError: The folder lacks one of them, or holds it in another shape.
    """
    index = read_index(folder)
    faults = [f"{name}: missing" for name in tensors if name not in index]
    faults += [
        f"{name}: expected {list(tensor.shape)}, got {index[name]['shape']}"
        for name, tensor in tensors.items()
        if name in index and index[name]["shape"] != list(tensor.shape)
    ]
    if faults:
        raise CheckpointError(
            f"{folder} holds another model: {'; '.join(faults[:5])}{' ...' if len(faults) > 5 else ''}. "
            "Resume with the configuration that wrote it, or set run.resume=never and another run.name."
        )
    with _without_single_process_warning():
        dcp.load(dict(tensors), storage_reader=_Reader(folder), no_dist=world.size == 1)


@contextmanager
def _without_single_process_warning() -> Iterator[None]:
    """Silence DCP's remark that one process saves alone, which is what `no_dist` asked for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
        yield
