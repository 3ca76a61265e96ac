"""Where rows come from: the Hub, files of one's own, or the sample inside the package.

A source gives the rows of one split and language in a fixed order, with each value under its role (text, label, ...).
`data.limit` is not applied here: a task counts the examples that it keeps.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from xlmrxl_train.config import DataConfig, DatasetConfig, FilesConfig, FileSet
from xlmrxl_train.data.examples import Row
from xlmrxl_train.data.files import content_hash, cut, matching_files, missing_column, missing_file, shown
from xlmrxl_train.data.formats import Record, at_least_one, format_of, read_records
from xlmrxl_train.data.formats.parallel import read_together
from xlmrxl_train.errors import ConfigError, DataError
from xlmrxl_train.hub import local_path

SPLITS = ("train", "validation", "test")
# Raised when the same files give other rows, so that tokenised data of an older version is not taken for theirs.
_VERSION = 1


class Source(Protocol):
    """Rows of one data set."""

    kind: str  # "hub", "files" or "sample"

    def has(self, split: str, language: str) -> bool:
        """Return whether the data set's configuration knows this split of this language. No file is looked at."""

    def rows(self, split: str, language: str) -> Iterator[Row]:
        """Yield the rows in a fixed order.

        Raises:
            DataError: There are none, or one of them is wrong.
        """

    def stand_ins(self, split: str, language: str) -> list[str]:
        """Return why this is not the official split, for reports; empty: it is."""

    def translated(self, language: str) -> bool:
        """Return whether a machine translated rows of the training split into this language."""

    def fingerprint(self, split: str, language: str) -> str:
        """Return a hash that changes when the rows do."""

    def check(self, split: str, languages: Iterable[str]) -> None:
        """Make sure that the files of a split are there.

        Raises:
            DataError: One is missing; the message names it, where it was looked for, and what comes near.
        """


def open_source(dataset: DatasetConfig, data: DataConfig) -> Source:
    """Choose where the rows of a data set come from.

    Raises:
        ConfigError: The data set has no such source.
    """
    kind = data.source
    if kind == "auto":
        offered = {"files": data.root and dataset.files, "hub": dataset.hub, "sample": dataset.sample}
        kind = next((name for name, place in offered.items() if place), "none")
    if kind == "hub" and dataset.hub is not None:
        from xlmrxl_train.data.hub_rows import HubSource  # late: the Hub's libraries take seconds

        return HubSource(dataset, dataset.hub)
    if kind == "files" and dataset.files is not None:
        if data.root is None:
            raise ConfigError("data.source=files needs data.root, got null. Set it to the folder of the files.")
        return FileSource(dataset, dataset.files, local_path(data.root, "data.root"), kind)
    if kind == "sample" and dataset.sample is not None:
        root = Path(str(resources.files("xlmrxl_train.data") / "sample"))
        return FileSource(dataset, dataset.sample, root, kind)
    if kind == "none":
        raise ConfigError(
            f"data.source=auto needs dataset.files with data.root, dataset.hub or dataset.sample, "
            f"got none of them for {dataset.name}. Set data.root, or describe a source in the data set's YAML."
        )
    raise ConfigError(
        f"data.source={kind} needs dataset.{kind}, which {dataset.name} lacks. Choose another source, or describe it."
    )


def column_of_role(columns: dict[str, str], overrides: dict[str, str], language: str) -> dict[str, str]:
    """Return role -> column for one language. No roles: every column stands under its own name."""
    return {role: name.replace("{language}", language) for role, name in {**columns, **overrides}.items()}


def values_of_roles(where: str, record: dict[str, Any], roles: dict[str, str]) -> dict[str, Any]:
    """Pick the values of a row.

    Raises:
        DataError: A column is missing.
    """
    for column in roles.values():
        if column not in record:
            raise missing_column(where, column, record)
    return {role: record[column] for role, column in roles.items()} if roles else record


class RowIds:
    """Ids of the rows of one split and language: the id column's values, or row numbers."""

    def __init__(self, column: str | None) -> None:
        """Take the column's name; None: rows are numbered."""
        self._column = column
        self._seen: dict[str, str] = {}

    def id_of(self, where: str, record: dict[str, Any], number: int) -> str:
        """Return the id of a row.

        Raises:
            DataError: It is missing, empty, or that of another row.
        """
        if self._column is None:
            return str(number)
        if self._column not in record:
            raise missing_column(where, self._column, record)
        value = record[self._column]
        if not isinstance(value, str | int) or value == "":
            raise DataError(
                f"{where}: expected an id in column {self._column!r}, found {shown(value)}. Set dataset.id_column."
            )
        if (first := self._seen.setdefault(str(value), where)) is not where:
            raise DataError(
                f"{where}: expected an id of its own in column {self._column!r}, found {shown(value)}, "
                f"which {first} has. Set dataset.id_column to null to number the rows."
            )
        return str(value)


class FileSource:
    """Rows from files below one folder."""

    def __init__(self, dataset: DatasetConfig, files: FilesConfig, root: Path, kind: str) -> None:
        """Remember where the files lie; `kind` is "files" or "sample"."""
        self.kind = kind
        self._dataset = dataset
        self._files = files
        self._root = root
        self._counts: dict[tuple[str, ...], int] = {}

    def has(self, split: str, language: str) -> bool:
        """Return whether a file set of this split is for this language."""
        return language in self._dataset.languages and bool(self._sets(split, language))

    def check(self, split: str, languages: Iterable[str]) -> None:
        """Make sure that every file set of the split has a file in each of the languages."""
        for language in languages:
            for key, files in self._sets_or_fault(split, language):
                self._paths(key, files, language)

    def stand_ins(self, split: str, language: str) -> list[str]:
        """Return the notes of the file sets that are not the official split."""
        notes = [files.stand_in for _, files in self._sets(split, language) if files.stand_in]
        return list(dict.fromkeys(notes))

    def translated(self, language: str) -> bool:
        """Return whether a file set of the training split says so."""
        return any(files.translated for _, files in self._sets("train", language))

    def fingerprint(self, split: str, language: str) -> str:
        """Return a hash of the files' bytes and of how they are read."""
        dataset = self._dataset
        reading = [
            {
                **asdict(files),
                "path": None,
                "languages": None,
                "stand_in": None,
                "translated": None,
                "columns": column_of_role(dataset.columns, files.columns, language),
                "parallel": list(files.parallel),
                "format": [self._format(path, files, key) for path in self._paths(key, files, language)],
                "content": [content_hash(path) for path in self._paths(key, files, language)],
            }
            for key, files in self._sets_or_fault(split, language)
        ]
        whose = [dataset.language_column, language] if dataset.language_column else None
        content = json.dumps([_VERSION, reading, dataset.id_column, whose], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def rows(self, split: str, language: str) -> Iterator[Row]:
        """Yield the rows of all file sets, one after the other; row numbers count on from set to set.

        A row keeps its number when `part` takes only some of the rows, so that row 7 of a file is example 7 in the
        first half as in the whole.
        """
        ids = RowIds(self._dataset.id_column)
        start = 0
        for key, files in self._sets_or_fault(split, language):
            roles = column_of_role(self._dataset.columns, files.columns, language)
            first, last, total = self._bounds(key, files, language)
            number = start
            for where, record in islice(self._records(key, files, language), first, last):
                values = values_of_roles(where, record, roles)
                yield Row(id=ids.id_of(where, record, number + first), values=values, where=where, language=language)
                number += 1
            start = start + total if total is not None else number

    def _sets(self, split: str, language: str) -> list[tuple[str, FileSet]]:
        assert split in SPLITS, split
        name = "sample" if self.kind == "sample" else "files"
        return [
            (f"dataset.{name}.{split}.{index}", files)
            for index, files in enumerate(getattr(self._files, split))
            if not files.languages or language in files.languages
        ]

    def _sets_or_fault(self, split: str, language: str) -> list[tuple[str, FileSet]]:
        sets = self._sets(split, language)
        if not sets:
            name = "sample" if self.kind == "sample" else "files"
            raise DataError(
                f"{self._root}: expected a {split} split of {self._dataset.name} in {language}, "
                f"found none in dataset.{name}.{split}. Choose other languages, or add its files there."
            )
        return sets

    def _paths(self, key: str, files: FileSet, language: str) -> list[Path]:
        """Return the files of a set: those that match its path, or one per column of `parallel`, in its order."""
        if files.parallel:
            return [
                self._matching(f"{key}.parallel.{column}", pattern, language)[0]
                for column, pattern in files.parallel.items()
            ]
        return self._matching(f"{key}.path", files.path, language)

    def _matching(self, key: str, pattern: str, language: str) -> list[Path]:
        pattern = pattern.replace("{language}", language)
        if not pattern:
            raise ConfigError(f"{key} must name a file below data.root, got nothing. Set it.")
        local_path(pattern, key)
        paths = matching_files(self._root, pattern)
        if not paths:
            raise missing_file(self._root, pattern, key)
        return paths

    def _format(self, path: Path, files: FileSet, key: str) -> str:
        if files.parallel:
            return "text" if files.format == "auto" else files.format
        return format_of(path, files, key)

    def _read(self, key: str, files: FileSet, paths: list[Path], wanted: list[str]) -> Iterator[Record]:
        if files.parallel:
            columns = dict(zip(files.parallel, paths, strict=True))
            yield from at_least_one(read_together(self._format(paths[0], files, key), columns, key, files), paths[0])
            return
        for path in paths:
            yield from read_records(path, self._format(path, files, key), files, wanted)

    def _records(self, key: str, files: FileSet, language: str) -> Iterator[Record]:
        """Yield the records of all files of one set that are in the language."""
        column = self._dataset.language_column
        roles = column_of_role(self._dataset.columns, files.columns, language)
        extra = [name for name in (column, self._dataset.id_column) if name]
        wanted = dict.fromkeys([*roles.values(), *extra]) if roles else {}
        others: dict[str, None] = {}
        found = False
        paths = self._paths(key, files, language)
        for where, record in self._read(key, files, paths, list(wanted)):
            if column is not None:
                if column not in record:
                    raise missing_column(where, column, record)
                if str(record[column]) != language:
                    others.setdefault(str(record[column]))
                    continue
            found = True
            yield where, record
        if not found:
            raise DataError(
                f"{paths[0]}: expected rows of {language} in column {column!r}, "
                f"found only {cut(', '.join(islice(others, 10)))}. "
                "Check dataset.languages and dataset.language_column."
            )

    def _bounds(self, key: str, files: FileSet, language: str) -> tuple[int, int | None, int | None]:
        """Return the first row, the one after the last, and the number of rows, where `part` asks for it."""
        if not files.part:
            return 0, None, None
        if len(files.part) != 2 or not 0 <= files.part[0] < files.part[1] <= 1:
            raise ConfigError(
                f"{key}.part must be two shares, as [0.0, 0.5] for the first half, got {files.part}. Mend it."
            )
        hashes = [content_hash(path) for path in self._paths(key, files, language)]
        memo = (key, language, *hashes)
        if memo not in self._counts:
            self._counts[memo] = sum(1 for _ in self._records(key, files, language))
        total = self._counts[memo]
        first, last = (round(share * total) for share in files.part)
        return first, last, total
