"""Several files read together: lines that belong to each other, and the two sides and gold pairs of bitext mining."""

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from xlmrxl_train.config import FileSet
from xlmrxl_train.data.files import shown, text_lines
from xlmrxl_train.data.formats import READERS
from xlmrxl_train.errors import ConfigError, DataError

Records = Iterator[tuple[str, dict[str, Any]]]

TABLES = ("tsv", "csv", "jsonl", "parquet")


def read_together(format_: str, paths: dict[str, Path], key: str, files: FileSet) -> Records:
    """Yield the records of several files.

    Args:
        format_: text: line n of each file belongs to line n of the others. tsv, csv, jsonl or parquet: likewise row n,
            whose columns are "<name>.<column>". bucc: see `read_bucc`.
        paths: Column -> file.
        key: The setting that named them, for messages.
        files: How to read tables.

    Raises:
        ConfigError: The format reads one file at a time.
        DataError: The files do not fit together.
    """
    if format_ == "text":
        return read_lines(paths)
    if format_ in TABLES:
        return _read_tables({name: READERS[format_](path, files, ()) for name, path in paths.items()}, paths)
    if format_ == "bucc" and set(paths) == {"source", "target", "gold"}:
        return read_bucc(**paths)
    raise ConfigError(
        f"{key}.parallel must be text files, one per column, or tables ({', '.join(TABLES)}), "
        "or with format=bucc source, target and gold; "
        f"got format={format_} and {', '.join(paths)}. Mend {key}."
    )


def read_lines(paths: dict[str, Path]) -> Records:
    """Yield line n of every file as one record.

    Raises:
        DataError: One file has fewer lines than the others.
    """
    first = next(iter(paths.values()))
    for number, lines in enumerate(zip_longest(*(text_lines(path) for path in paths.values())), start=1):
        _check_none_ended(lines, paths, f":{number}", "line")
        yield f"{first}:{number}", {column: line[1] for column, line in zip(paths, lines, strict=True)}


def _read_tables(tables: dict[str, Records], paths: dict[str, Path]) -> Records:
    for number, records in enumerate(zip_longest(*tables.values())):
        _check_none_ended(records, paths, f" row {number}", "row")
        row = {f"{name}.{column}": value for name, (_, record) in zip(tables, records, strict=True)
               for column, value in record.items()}  # fmt: skip
        yield records[0][0], row


def _check_none_ended(records: Sequence[object], paths: dict[str, Path], place: str, what: str) -> None:
    if None in records:
        short, long = (next(p for p, record in zip(paths.values(), records, strict=True) if (record is None) is ended)
                       for ended in (True, False))  # fmt: skip
        raise DataError(
            f"{short}{place}: expected a {what} beside the one in {long}, found the end of the file. "
            f"Give files whose {what}s are translations of one another."
        )


def read_bucc(source: Path, target: Path, gold: Path) -> Records:
    """Yield the sentences of both sides: `id`, `text`, `side` (source or target) and `gold`, the id of its translation.

    Sentences are lines "id<TAB>text", gold pairs "source id<TAB>target id"; `gold` is empty where a sentence has none.

    Source: BUCC 2018 shared task, comparable.limsi.fr/bucc2018.

    Raises:
        DataError: A line has another form, or a gold pair names a sentence that is not there.
    """
    partner: dict[str, dict[str, str]] = {"source": {}, "target": {}}
    where_of: dict[str, dict[str, str]] = {"source": {}, "target": {}}
    for where, (left, right) in _pairs(gold, "source id<TAB>target id"):
        partner["source"][left], partner["target"][right] = right, left
        where_of["source"].setdefault(left, where)
        where_of["target"].setdefault(right, where)
    for side, path in (("source", source), ("target", target)):
        for where, (name, text) in _pairs(path, "id<TAB>text"):
            where_of[side].pop(name, None)
            yield where, {"id": f"{side}/{name}", "text": text, "side": side, "gold": partner[side].get(name, "")}
        if missing := next(iter(where_of[side]), None):
            raise DataError(
                f"{where_of[side][missing]}: expected the id of a sentence of {path}, found {shown(missing)}. "
                "Give the gold pairs that belong to these files."
            )


def _pairs(path: Path, form: str) -> Iterator[tuple[str, tuple[str, str]]]:
    for number, line in text_lines(path):
        left, tab, right = line.partition("\t")
        if not tab or not left:
            raise DataError(f"{path}:{number}: expected {form}, found {shown(line)}. Mend the line.")
        yield f"{path}:{number}", (left, right)
