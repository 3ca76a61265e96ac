"""One reader per file format: each yields (where, {column: value}) for every record, in the file's order.

`where` is "file:line" or "file row n" (rows from 0), and begins every message about the record.
"""

from collections.abc import Callable, Collection, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from xlmrxl_train.config import FileSet
from xlmrxl_train.data.formats.json_text import read_jsonl, read_squad
from xlmrxl_train.data.formats.sentences import read_conll, read_conllu, read_text
from xlmrxl_train.data.formats.tables import read_delimited, read_parquet
from xlmrxl_train.data.formats.udhr import read_udhr
from xlmrxl_train.errors import ConfigError, DataError

Record = tuple[str, dict[str, Any]]

READERS: dict[str, Callable[[Path, FileSet, Collection[str]], Iterator[Record]]] = {
    "tsv": lambda path, files, _: read_delimited(path, files, "\t", quoting=False),
    "csv": lambda path, files, _: read_delimited(path, files, ",", quoting=True),
    "jsonl": lambda path, _files, _: read_jsonl(path),
    "parquet": lambda path, _, wanted: read_parquet(path, wanted),
    "conll": lambda path, files, _: read_conll(path, files),
    "conllu": lambda path, _files, _: read_conllu(path),
    "squad": lambda path, _files, _: read_squad(path),
    "text": lambda path, _files, _: read_text(path),
    "udhr": lambda path, _files, _: read_udhr(path),
}

_SUFFIXES = {
    ".tsv": "tsv",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".conll": "conll",
    ".bio": "conll",
    ".conllu": "conllu",
    ".json": "squad",
    ".txt": "text",
}


def format_of(path: Path, files: FileSet, key: str) -> str:
    """Return the format of a file, by its suffix where `files.format` is auto.

    Raises:
        ConfigError: The format is unknown, or the suffix says nothing.
    """
    if files.format == "auto":
        suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
        if suffix in _SUFFIXES:
            return _SUFFIXES[suffix]
        raise ConfigError(f"{key}.format must be {' | '.join(READERS)} for {path.name}, got auto. Set it.")
    if files.format not in READERS:
        raise ConfigError(f"{key}.format must be auto | {' | '.join(READERS)}, got {files.format!r}.")
    return files.format


def read_records(path: Path, format_: str, files: FileSet, wanted: Collection[str]) -> Iterator[Record]:
    """Yield the records of one file.

    Args:
        path: The file, also gzipped.
        format_: From `format_of`.
        files: How to read it.
        wanted: The columns that will be looked at; empty: all. Formats that can, read no others.

    Raises:
        DataError: The file cannot be read, is empty, or breaks its format.
    """
    return at_least_one(READERS[format_](path, files, wanted), path)


def at_least_one(records: Iterator[Record], path: Path) -> Iterator[Record]:
    """Return `records`.

    Raises:
        DataError: There is none; the message begins with `path`.
    """
    first = next(records, None)
    if first is None:
        raise DataError(
            f"{path}: expected at least one record, found none. Fill the file, or take it out of the data set."
        )
    return chain([first], records)
