"""Inputs from a file or from standard input: line by line, so that a damaged line does not take others with it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from xlmrxl_train.config import FileSet
from xlmrxl_train.data.files import cut, decoded, open_bytes, readable, shown
from xlmrxl_train.data.formats import format_of, read_records
from xlmrxl_train.data.formats.json_text import parsed
from xlmrxl_train.errors import ConfigError, DataError
from xlmrxl_train.inference.streaming import Input, attempt

STANDARD_INPUT = "-"
_BOM = "\ufeff"
_JSON_LINES = (".jsonl", ".ndjson")


def read_lines(path: str, parse: Callable[[str, str], Any]) -> Iterator[Input]:
    """Yield an input per line; of a file that ends in .jsonl each line is a JSON value.

    Args:
        path: A file, also gzipped; "-": standard input.
        parse: Turns where a line is, and the line, into a value.

    Raises:
        DataError: The file cannot be read.
    """
    json_lines = any(path.removesuffix(".gz").endswith(suffix) for suffix in _JSON_LINES)
    for where, number, raw in _numbered(path):
        text = attempt(decoded, raw, where)
        if isinstance(text, str) and number == 1:
            text = text.removeprefix(_BOM)
        if isinstance(text, str) and not text.strip():
            text = DataError(f"{where}: expected an input, found a blank line. Remove it.")
        if isinstance(text, str):
            value = attempt(parsed, text, *_place(where)) if json_lines else attempt(parse, where, text)
        else:
            value = text
        yield _input(where, number, value)


def read_rows(path: str) -> Iterator[Input]:
    """Yield a record per row, column -> value: lines of TSV or JSON, or the records of any format that is trained on.

    A file without lines of its own (CSV, CoNLL, CoNLL-U, SQuAD, Parquet) is read to its end or to its first damage,
    since nothing says where the next record begins.

    Args:
        path: A file, also gzipped; "-": standard input, as TSV.

    Raises:
        ConfigError: The suffix says no format.
        DataError: The file cannot be read, or a format that does not go by lines is damaged.
    """
    form = "tsv" if path == STANDARD_INPUT else _format(path)
    if form == "jsonl":
        yield from map(_checked_object, read_lines(path, lambda _, text: text))
        return
    if form != "tsv":
        records = read_records(Path(path), form, FileSet(path=path), [])
        for number, (where, record) in enumerate(records):
            yield Input(where=where, value=record, number=number, by_line=False)
        return
    names: list[str] = []
    number = 0
    for where, number, raw in _numbered(path):
        text = attempt(decoded, raw, where)
        if not names:
            if isinstance(text, DataError):
                raise text
            names = _names(where, text.removeprefix(_BOM))
            continue
        yield _input(where, number, text if isinstance(text, DataError) else attempt(_fields, where, text, names))
    if number == 1:
        raise DataError(f"{where}: expected rows below the names of the columns, found none. Give some input.")


def _names(where: str, line: str) -> list[str]:
    names = line.split("\t")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{where}: expected names of columns that differ, found {cut(', '.join(map(shown, twice)))} "
                        "more than once. Rename one.")  # fmt: skip
    return names


def _fields(where: str, line: str, names: list[str]) -> dict[str, str]:
    fields = line.split("\t")
    if len(fields) != len(names):
        raise DataError(f"{where}: expected {len(names)} fields ({cut(', '.join(names))}), found {len(fields)}. "
                        "Mend the line; the first line names the columns, tabs stand between them.")  # fmt: skip
    return dict(zip(names, fields, strict=True))


def _checked_object(item: Input) -> Input:
    if item.fault is None and not isinstance(item.value, dict):
        item.fault = DataError(f"{item.where}: expected a JSON object, found {shown(item.value)}. "
                               'Write each line as {"column": value, ...}.')  # fmt: skip
    return item


def _format(path: str) -> str:
    try:
        return format_of(Path(path), FileSet(path=path), "input")
    except ConfigError:
        raise ConfigError(f"--input must be a file ending in .tsv, .csv, .jsonl, .parquet, .conll, .conllu, .txt or "
                          f".json (SQuAD's), got {path}. Rename it.") from None  # fmt: skip


def _input(where: str, number: int, value: Any) -> Input:
    if isinstance(value, DataError):
        return Input(where=where, number=number, fault=value)
    return Input(where=where, number=number, value=value)


def _numbered(path: str) -> Iterator[tuple[str, int, bytes]]:
    """Yield where a line is, its number from 1, and its bytes.

    Raises:
        DataError: The file cannot be read, or has no line.
    """
    name = "standard input" if path == STANDARD_INPUT else path
    with _opened(path) as stream:
        number = 0
        for number, raw in enumerate(stream, start=1):
            yield f"{name}:{number}", number, raw
    if not number:
        raise DataError(f"{name}: expected at least one line, found none. Give some input.")


@contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    if path == STANDARD_INPUT:
        if sys.stdin is None:  # `xlmrxl run ... <&-`
            raise DataError("standard input: expected at least one line, found it closed. Give some input.")
        yield sys.stdin.buffer
        return
    with readable(Path(path)), open_bytes(Path(path)) as stream:
        yield stream


def _place(where: str) -> tuple[str, int]:
    name, _, number = where.rpartition(":")
    return name, int(number)
