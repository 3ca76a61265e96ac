"""Tensors of all ranks in one folder, through torch.distributed.checkpoint, with nothing that executes on reading.

tensors/
  index.json              name -> dtype, shape, and where each piece of it lies
  rank-00000.safetensors  the pieces that rank 0 wrote, in a format that other tools read too

DCP's own files are pickles. These are JSON and plain bytes; every number of the index is checked against the shapes
that are wanted and the sizes of the files before memory is taken.
"""

import json
import os
import struct
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem, SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from xlmrxl_train.errors import CheckpointError
from xlmrxl_train.parallel.tensor_slice import TensorSlice
from xlmrxl_train.parallel.world import World
from xlmrxl_train.progress import progress

INDEX = "index.json"
MAX_INDEX_BYTES = 1 << 28  # 36 layers over 1,024 ranks stay well below it
_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    """Where a piece of a tensor lies."""

    file: str
    begin: int
    sizes: tuple[int, ...]
    dtype: str

    @property
    def num_bytes(self) -> int:
        return prod(self.sizes) * _dtype(self.dtype).itemsize


class _Writer(dcp.StorageWriter):
    """Writes one file of plain bytes per rank, and `index.json` on rank 0 when all are there."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.folder = folder
        self.file = f"rank-{rank:05d}.safetensors"

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write this rank's pieces, one after the other."""
        header: dict[str, Any] = {}
        begin = 0
        for item in plan.items:
            place = self._place(item, 0)
            end = begin + place.num_bytes
            header[_name_of_piece(item)] = {
                "dtype": _DTYPES[place.dtype],
                "shape": place.sizes,
                "data_offsets": [begin, end],
            }
            begin = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        results = []
        if plan.items:
            with (self.folder / self.file).open("wb") as stream:
                stream.write(struct.pack("<Q", len(text)) + text)
                for item in plan.items:
                    place = self._place(item, stream.tell())
                    tensor = planner.resolve_data(item)
                    assert isinstance(tensor, torch.Tensor) and tuple(tensor.shape) == place.sizes, item.index
                    stream.write(_bytes(tensor.detach().cpu().contiguous()))
                    results.append(WriteResult(item.index, place.num_bytes, place))
                    progress.move()
                stream.flush()
                os.fsync(stream.fileno())
        return _done(results)

    def _place(self, item: WriteItem, begin: int) -> _Place:
        data = item.tensor_data
        assert data is not None, f"{item.index.fqn} is no tensor"
        dtype = str(data.properties.dtype).removeprefix("torch.")
        return _Place(file=self.file, begin=begin, sizes=tuple(data.chunk.sizes), dtype=dtype)

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Write where each piece of each tensor lies; called on rank 0 after all ranks have written."""
        pieces: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for result in (result for part in results for result in part):
            place: _Place = result.storage_data
            offsets = list(result.index.offset or [0] * len(place.sizes))
            pieces[result.index.fqn].append(
                {"offsets": offsets, "sizes": list(place.sizes), "file": place.file, "begin": place.begin}
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
        (self.folder / INDEX).write_text(json.dumps(index), encoding="utf-8")

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Do nothing: every checkpoint has a writer of its own."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the folder was made before."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Return the plan as it is."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Return the plans as they are."""
        return plans

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Return False: this writer is never chosen by a path."""
        return False


class _Reader(dcp.StorageReader):
    """Reads what `_Writer` wrote, by an index that `read_index` has checked."""

    def __init__(self, folder: Path, index: dict[str, Any]) -> None:
        self.folder = folder
        self.index = index
        self.places = {
            MetadataIndex(name, piece["offsets"]): _Place(
                file=piece["file"], begin=piece["begin"], sizes=tuple(piece["sizes"]), dtype=entry["dtype"]
            )
            for name, entry in index.items()
            for piece in entry["pieces"]
        }

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Turn the index into what DCP wants to know."""
        tensors: dict[str, Any] = {
            name: TensorStorageMetadata(
                TensorProperties(dtype=_dtype(entry["dtype"])),
                torch.Size(entry["shape"]),
                [ChunkStorageMetadata(torch.Size(p["offsets"]), torch.Size(p["sizes"])) for p in entry["pieces"]],
            )
            for name, entry in self.index.items()
        }
        return Metadata(tensors, planner_data={})

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Fill the tensors of the plan, file by file in the order of their bytes."""
        wanted: dict[str, list[tuple[_Place, ReadItem]]] = defaultdict(list)
        for item in plan.items:
            place = self.places[item.storage_index]
            wanted[place.file].append((place, item))
        for file, items in wanted.items():
            with (self.folder / file).open("rb") as stream:
                for place, item in sorted(items, key=lambda pair: pair[0].begin):
                    target = planner.resolve_tensor(item).detach()
                    target.copy_(self._read(stream, place, item))
                    planner.commit_tensor(item, target)
                    progress.move()
        return _done(None)

    def _read(self, stream: Any, place: _Place, item: ReadItem) -> torch.Tensor:
        """Read the rows that are wanted, then narrow the other dimensions."""
        offsets, lengths = list(item.storage_offsets), list(item.lengths)
        sizes, begin = list(place.sizes), place.begin
        if sizes:
            begin += offsets[0] * prod(sizes[1:]) * _dtype(place.dtype).itemsize
            sizes[0], offsets[0] = lengths[0], 0
        tensor = torch.empty(sizes, dtype=_dtype(place.dtype))
        _read_into(tensor, stream, begin, item.storage_index.fqn)
        for dimension, (offset, length) in enumerate(zip(offsets, lengths, strict=True)):
            tensor = tensor.narrow(dimension, offset, length)
        return tensor

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Do nothing: every checkpoint has a reader of its own."""

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the index was given."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Return the plan as it is."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Return the plans as they are."""
        return plans

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Return False: this reader is never chosen by a path."""
        return False


def read_index(folder: Path) -> dict[str, Any]:
    """Return the index of a folder of tensors: name -> dtype, shape, pieces.

    Raises:
        CheckpointError: It is missing or not such an index, or says what the files beside it cannot hold.
    """
    path = folder / INDEX
    try:
        if path.stat().st_size > MAX_INDEX_BYTES:
            raise ValueError(f"{path.stat().st_size:,} bytes")
        index = json.loads(path.read_text(encoding="utf-8"))
        sizes: dict[str, int] = {}
        for name, entry in index.items():
            _check_entry(folder, name, entry, sizes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} must list the tensors of a checkpoint, got {_reason(error)}. Use another checkpoint."
        ) from None
    return index  # type: ignore[no-any-return]


def _check_entry(folder: Path, name: str, entry: dict[str, Any], file_sizes: dict[str, int]) -> None:
    """Make sure that the pieces of a tensor lie inside it, make it up, and lie inside their files.

    Raises:
        ValueError: They do not; KeyError, TypeError, AttributeError: it is no such entry.
    """
    shape, itemsize = _numbers(entry["shape"]), _dtype(entry["dtype"]).itemsize
    covered = 0
    for piece in entry["pieces"]:
        offsets, sizes, [begin] = _numbers(piece["offsets"]), _numbers(piece["sizes"]), _numbers([piece["begin"]])
        bounds = zip(offsets, sizes, shape, strict=True)
        if any(offset + size > whole for offset, size, whole in bounds):
            raise ValueError(f"a piece of {name} outside of its shape {shape}")
        file = piece["file"]
        if file not in file_sizes:
            if file != Path(file).name or not file.startswith("rank-"):
                raise ValueError(f"a piece of {name} in {file!r}, which is no file of this folder")
            file_sizes[file] = (folder / file).stat().st_size
        end = begin + prod(sizes) * itemsize
        if end > file_sizes[file]:
            raise ValueError(f"a piece of {name} up to byte {end:,} of {file}, which has {file_sizes[file]:,}")
        covered += prod(sizes)
    if covered != prod(shape):
        raise ValueError(f"{covered:,} of the {prod(shape):,} elements of {name}")


def save_tensors(folder: Path, tensors: dict[str, torch.Tensor], world: World) -> None:
    """Write every rank's part of `tensors` into `folder`, a new one; equal tensors of several ranks are written once.

    Raises:
        OSError: On every rank, where any of them could not write.
    """
    world.first(lambda: folder.mkdir())
    with _plain_faults():
        dcp.save(
            dict(tensors),
            storage_writer=_Writer(folder, world.rank),
            process_group=world.group,
            no_dist=world.size == 1,
        )


def staged(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return copies in host memory, which training does not change."""
    return {
        name: tensor.staged() if isinstance(tensor, TensorSlice) else tensor.detach().to("cpu", copy=True)
        for name, tensor in tensors.items()
    }


def load_tensors(folder: Path, tensors: dict[str, torch.Tensor], world: World) -> None:
    """Fill `tensors` in place from `folder`, whatever number of ranks wrote it.

    Raises:
        CheckpointError: The folder lacks one of them, or holds it in another shape or dtype; on every rank.
    """
    index = world.first(lambda: read_index(folder))
    faults = [f"{name}: missing" for name in tensors if name not in index]
    for name, tensor in tensors.items():
        here = (str(tensor.dtype).removeprefix("torch."), list(tensor.shape))
        if name in index and here != (there := (index[name]["dtype"], index[name]["shape"])):
            faults.append(f"{name}: expected {here[0]} {here[1]}, got {there[0]} {there[1]}")
    if faults:
        raise CheckpointError(
            f"{folder} holds another model: {'; '.join(faults[:5])}{' ...' if len(faults) > 5 else ''}. "
            "Resume with the configuration that wrote it, or set run.resume=never and another run.name."
        )
    try:
        with _plain_faults():
            dcp.load(dict(tensors), storage_reader=_Reader(folder, index), no_dist=world.size == 1)
    except OSError as error:
        raise CheckpointError(
            f"{folder} cannot be read: {error.strerror or error}. Every rank needs the same files: use a shared folder."
        ) from error


def read_tensor(folder: Path, entry: dict[str, Any], dtype: torch.dtype) -> torch.Tensor:
    """Return one tensor in `dtype`, whole, from the pieces of its entry in the index, in one process.

    Raises:
        CheckpointError: A file ends too early.
    """
    whole = torch.empty(entry["shape"], dtype=dtype)
    for offsets, values in read_pieces(folder, entry):
        place = tuple(slice(first, first + size) for first, size in zip(offsets, values.shape, strict=True))
        whole[place].copy_(values)
    return whole


def read_pieces(folder: Path, entry: dict[str, Any]) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Yield where each piece of a tensor begins in it, and its values.

    Raises:
        CheckpointError: A file ends too early.
    """
    for piece in entry["pieces"]:
        values = torch.empty(piece["sizes"], dtype=_dtype(entry["dtype"]))
        with (folder / piece["file"]).open("rb") as stream:
            _read_into(values, stream, piece["begin"], "a tensor")
        yield piece["offsets"], values
        progress.move()


def _read_into(tensor: torch.Tensor, stream: Any, begin: int, name: str) -> None:
    stream.seek(begin)
    if tensor.numel() and stream.readinto(_bytes(tensor)) != tensor.nbytes:
        raise CheckpointError(f"{stream.name} ends within {name}. Use another checkpoint.")


@contextmanager
def _plain_faults() -> Iterator[None]:
    """Raise the first rank's exception as it was, not DCP's collection of them, which is no Exception.

    DCP's remark that one process saves alone is silenced: that is what `no_dist` asked for.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
            yield
    except CheckpointException as error:
        faults = [fault for _, (fault, _) in sorted(error.failures.items())]
        # Ctrl-C arrives inside DCP like any other exception, and goes before the faults that it caused.
        raise next((fault for fault in faults if not isinstance(fault, Exception)), faults[0]) from None


def _done(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future


def _name_of_piece(item: WriteItem) -> str:
    """Return the tensor's name, with the piece's offsets where it is not the whole tensor."""
    assert item.tensor_data is not None
    whole = item.tensor_data.chunk.sizes == item.tensor_data.size
    return item.index.fqn if whole else f"{item.index.fqn}{list(item.tensor_data.chunk.offsets)}"


def _bytes(tensor: torch.Tensor) -> memoryview:
    """Return the memory of a contiguous tensor on the CPU."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _dtype(name: str) -> torch.dtype:
    if name not in _DTYPES:
        raise ValueError(f"dtype {name!r}")
    return getattr(torch, name)  # type: ignore[no-any-return]


def _numbers(values: Any) -> list[int]:
    if not isinstance(values, list) or not all(type(value) is int and value >= 0 for value in values):
        raise ValueError(f"{values!r:.40} where numbers belong")
    return values


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.strerror} ({error.filename})"
    return f"no {error}" if isinstance(error, KeyError) else str(error)
