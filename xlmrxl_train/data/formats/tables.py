"""Tables: TSV, CSV and parquet."""

import csv
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from xlmrxl_train.config import FileSet
from xlmrxl_train.data.files import cut, missing_column, open_bytes, readable, shown, text_lines
from xlmrxl_train.errors import ConfigError, DataError


def read_delimited(
    path: Path, files: FileSet, delimiter: str, *, quoting: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of a TSV or CSV file.

    Args:
        path: The file.
        files: Its header, column_names, separator and quoting.
        delimiter: Where `files.separator` is not set.
        quoting: Where `files.quoting` is not set.

    Raises:
        ConfigError: The settings contradict one another.
        DataError: A row has another number of fields than there are columns, or its quotes are wrong.
    """
    names = files.column_names
    if files.header == bool(names):
        raise ConfigError(
            f"{path}: column_names must be given where header is false, and only there, "
            f"got header={str(files.header).lower()} and column_names={names}. Set header or column_names."
        )
    delimiter = files.separator or delimiter
    quoting = quoting if files.quoting is None else files.quoting
    rows = _quoted_rows(path, delimiter) if quoting else _plain_rows(path, delimiter)
    blank: int | None = None
    for number, row in rows:
        fields = row or [""]
        if not names:
            names = _checked_names(fields, f"{path}:{number}")
            continue
        if blank is not None:
            raise DataError(f"{path}:{blank}: expected {len(names)} fields, found a blank line. Remove it.")
        if fields == [""] and len(names) > 1:
            blank = number  # not wrong at the end of the file
            continue
        if len(fields) != len(names):
            raise DataError(
                f"{path}:{number}: expected {len(names)} fields ({cut(', '.join(names))}), "
                f"found {len(fields)}. Mend the line, or set the separator, quoting or column_names of its files."
            )
        yield f"{path}:{number}", dict(zip(names, fields, strict=True))


def _checked_names(names: list[str], where: str) -> list[str]:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(
            f"{where}: expected column names that differ, found {', '.join(map(shown, twice[:50]))} more than once. "
            "Rename one, or set header and column_names of its files."
        )
    return names


def _plain_rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in text_lines(path):
        yield number, line.split(delimiter)


def _quoted_rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise ConfigError(
            f"{path}: separator must be one character, and no quote, where quoting is on, got {delimiter!r}. "
            "Set another separator, or quoting to false."
        )
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader((line + "\n" for _, line in text_lines(path)), delimiter=delimiter, strict=True)
    while True:
        number = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{path}:{number}: expected fields separated by {delimiter!r} and quoted by '\"', found a row that is "
                f"not ({error}). Mend its quotes, or set quoting of its files to false."
            ) from error
        yield number, fields


def read_parquet(path: Path, wanted: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of a parquet file; `wanted` names the columns to read, empty: all.

    Raises:
        DataError: It is not parquet, lacks a column, or holds something else than text, numbers and lists of them.
    """
    import pyarrow as pa
    from pyarrow import parquet

    with readable(path), open_bytes(path) as stream:
        try:
            table = parquet.ParquetFile(pa.BufferReader(stream.read()) if path.suffix == ".gz" else stream)
            names = list(wanted) or table.schema_arrow.names
            for name in names:
                if name not in table.schema_arrow.names:
                    raise missing_column(str(path), name, table.schema_arrow.names)
                _check_type(table.schema_arrow.field(name).type, f"{path}: column {name!r}")
            index = 0
            for batch in table.iter_batches(batch_size=1000, columns=names):
                for values in batch.to_pylist():
                    yield f"{path} row {index}", values
                    index += 1
        except (pa.ArrowException, UnicodeDecodeError) as error:
            fault = str(error).partition("\n")[0]
            raise DataError(f"{path}: expected a parquet file, got {fault}. Fetch it again.") from error


def _check_type(kind: Any, where: str) -> None:
    """Refuse what has no counterpart among text, numbers, lists and structures of them."""
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_nested(kind):
        for index in range(kind.num_fields):
            _check_type(kind.field(index).type, where)
        return
    tests = (types.is_integer, types.is_floating, types.is_boolean, types.is_string, types.is_large_string)
    if not any(test(kind) for test in tests) and not types.is_null(kind):
        raise DataError(f"{where}: expected text, numbers or lists of them, got {kind}. Convert the column.")
