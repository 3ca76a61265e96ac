"""Tokenised examples on disk: written once, found again by what they were made from, read without loading them.

A table is one Arrow file, <fingerprint>.arrow, whose rows are features in the order of their examples. Each of its
record batches carries a checksum, so that a file cut short or damaged is noticed and built again.
"""

import fcntl
import logging
import os
import secrets
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xlmrxl_train.data.examples import Feature
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.progress import progress

logger = logging.getLogger(__name__)

_VERSION = b"1"
_CHUNK = 10_000  # features per record batch
_LEFT_OVER_SECONDS = 6 * 3600
_OWN_COLUMNS = ("id", "example", "input_ids")

Built = Iterable[tuple[str, list[Feature]]]


def open_or_build(folder: Path, fingerprint: str, build: Callable[[], Built]) -> "FeatureTable":
    """Open the table of a fingerprint; build it first if it is not there or damaged.

    Processes that start at once wait for the one that builds. Where the file system knows no locks each builds its
    own, and the last one to finish puts the same content in place.

    Args:
        folder: Of the cache; made if it does not exist.
        fingerprint: A hash of everything that the features depend on.
        build: Yields (example id, its features) in order.

    Raises:
        ConfigError: The folder cannot be written.
    """
    path = folder / f"{fingerprint}.arrow"
    if (table := _opened(path, fingerprint)) is not None:
        return table
    with _writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(folder / f"{fingerprint}.lock"):
            if (table := _opened(path, fingerprint)) is not None:  # another process built it meanwhile
                return table
            _write(path, fingerprint, build)
    table = _opened(path, fingerprint)
    assert table is not None, f"{path} was written just now"
    return table


class FeatureTable:
    """Features of one split and language, memory-mapped.

    Attributes:
        fingerprint: What it was made from.
        num_examples: Number of examples.
        ids: Id of each example.
        lengths: Tokens of each feature, int32.
        example_of: Example of each feature, int32, ascending.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        """Map a file into memory and check it.

        Raises:
            ValueError: It is damaged, or was made from something else.
        """
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        metadata = reader.schema.metadata or {}
        if metadata.get(b"version") != _VERSION or metadata.get(b"fingerprint") != fingerprint.encode():
            raise ValueError("made by another version")
        batches = [_checked(reader, index) for index in range(reader.num_record_batches)]
        self.fingerprint = fingerprint
        self._starts = np.cumsum([0, *(batch.num_rows for batch in batches)])
        names = [name for name in reader.schema.names if name not in _OWN_COLUMNS]
        self._columns = [{name: batch.column(name) for name in names} for batch in batches]
        self._offsets = [batch.column("input_ids").offsets.to_numpy() for batch in batches]
        self._tokens = [batch.column("input_ids").values.to_numpy() for batch in batches]
        self.lengths: NDArray[np.int32] = _joined([np.diff(offsets) for offsets in self._offsets])
        self.example_of: NDArray[np.int32] = _joined([batch.column("example").to_numpy() for batch in batches])
        self._first = np.flatnonzero(np.diff(self.example_of, prepend=-1))
        self.num_examples = len(self._first)
        of_features = chain.from_iterable(batch.column("id").to_pylist() for batch in batches)
        self.ids: list[str] = [id_ for id_ in of_features if id_ is not None]
        if len(self.ids) != self.num_examples:
            raise ValueError("examples and ids do not agree")

    def __len__(self) -> int:
        """Return the number of features."""
        return int(self._starts[-1])

    def mark_tokens(self, seen: NDArray[np.bool_]) -> None:
        """Set the place of every token id that occurs."""
        for tokens in self._tokens:
            seen[tokens] = True

    def id_of(self, example: int) -> str:
        """Return the id of an example, unique within its split and language."""
        return self.ids[example]

    def features_of(self, example: int) -> list[Feature]:
        """Return all features of an example: its windows or choices, in order."""
        if not 0 <= example < self.num_examples:
            raise IndexError(f"example {example} of {self.num_examples}")
        first = int(self._first[example])
        last = int(self._first[example + 1]) if example + 1 < self.num_examples else len(self)
        return [self.feature(index) for index in range(first, last)]

    def feature(self, index: int) -> Feature:
        """Return one feature; tuples that were stored come back as lists."""
        if not 0 <= index < len(self):
            raise IndexError(f"feature {index} of {len(self)}")
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        row = index - int(self._starts[number])
        offsets = self._offsets[number]
        return Feature(
            example=int(self.example_of[index]),
            input_ids=self._tokens[number][offsets[row] : offsets[row + 1]].tolist(),
            columns={name: column[row].as_py() for name, column in self._columns[number].items()},
        )


def _joined(parts: list[NDArray[np.int32]]) -> NDArray[np.int32]:
    return np.concatenate(parts).astype(np.int32, copy=False) if parts else np.zeros(0, dtype=np.int32)


def _opened(path: Path, fingerprint: str) -> FeatureTable | None:
    """Return the table in a file; None if there is none, or none that can be used."""
    if not path.exists():
        return None
    try:
        return FeatureTable(path, fingerprint)
    except (ValueError, KeyError, OSError, pa.ArrowException) as error:
        logger.warning("cache file %s is damaged (%s); it is built again", path, error)
        return None


def _checksum(batch: pa.RecordBatch) -> bytes:
    checksum = zlib.crc32(str(batch.num_rows).encode())
    for column in batch.columns:
        for buffer in column.buffers():
            if buffer is not None:
                checksum = zlib.crc32(buffer, checksum)
    return str(checksum).encode()


def _checked(reader: pa.RecordBatchFileReader, index: int) -> pa.RecordBatch:
    batch, metadata = reader.get_batch_with_custom_metadata(index)
    if metadata is None or metadata.get(b"checksum") != _checksum(batch):
        raise ValueError(f"wrong checksum in batch {index}")
    return batch


def _write(path: Path, fingerprint: str, build: Callable[[], Built]) -> None:
    """Write the features in chunks to a file of another name, which takes its name when it is whole."""
    for left_over in path.parent.glob(f"{path.name}.*.tmp"):  # of killed processes; a live one writes all the time
        if time.time() - left_over.stat().st_mtime > _LEFT_OVER_SECONDS:
            left_over.unlink(missing_ok=True)
    temporary = path.parent / f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        with temporary.open("wb") as stream:
            _write_batches(stream, fingerprint, build())
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_batches(stream: Any, fingerprint: str, built: Built) -> None:
    rows = _rows(built)
    columns = _columns_of(list(islice(rows, _CHUNK)))
    types = {name: _compact(pa.array(values)) for name, values in columns.items()}
    types |= {"id": pa.string(), "example": pa.int32(), "input_ids": pa.list_(pa.int32())}
    schema = pa.schema(types, metadata={"version": _VERSION, "fingerprint": fingerprint})
    with pa.ipc.new_file(stream, schema) as writer:
        while columns:
            arrays = []
            assert columns.keys() == types.keys(), "features of one table must have the same columns"
            for name in schema.names:
                try:
                    arrays.append(pa.array(columns[name], type=types[name]))
                except (pa.ArrowException, OverflowError) as error:
                    raise TypeError(f"feature column {name!r} is of type {types[name]}, then {error}") from error
            batch = pa.record_batch(arrays, schema=schema)
            # Through the format once, so that the checksum sees the buffers as they will be read.
            batch = pa.ipc.read_record_batch(batch.serialize(), schema)
            writer.write_batch(batch, custom_metadata={"checksum": _checksum(batch)})
            columns = _columns_of(list(islice(rows, _CHUNK)))


def _rows(built: Built) -> Iterator[dict[str, Any]]:
    for example, (id_, features) in enumerate(built):
        assert features, f"example {id_} has no feature, so it could never be scored"
        for index, feature in enumerate(features):
            own = {"id": None if index else id_, "example": example, "input_ids": feature.input_ids}
            yield own | feature.columns


def _columns_of(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    if not rows:
        return {}
    names = rows[0].keys()
    assert all(row.keys() == names for row in rows), "features of one table must have the same columns"
    return {name: [row[name] for row in rows] for name in names}


def _compact(values: pa.Array) -> pa.DataType:
    """Return the type to store a column as: whole numbers in lists take four bytes each."""
    return _narrowed(values.type) if pa.types.is_list(values.type) else values.type


def _narrowed(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_list(kind):
        return pa.list_(_narrowed(kind.value_type))
    # A column whose first lists are all empty holds lists of whole numbers, the only kind that tasks store.
    return pa.int32() if pa.types.is_integer(kind) or pa.types.is_null(kind) else kind


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as stream:
        try:
            with progress.trusting("waiting for another process that tokenises the same data"):
                fcntl.flock(stream, fcntl.LOCK_EX)
        except OSError as error:
            logger.info("no lock on %s (%s); several processes may build the same table", path, error)
        yield


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"data.cache must be a folder that can be written, got {folder} ({error.strerror or error}). "
            "Set data.cache or $XLMRXL_CACHE, or make room there."
        ) from error
