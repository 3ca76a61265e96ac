"""Files of a data set: finding them, reading them line by line and strictly, knowing their content.

Every fault is a `DataError` that begins with the file, and the line where there is one.
"""

import difflib
import glob
import gzip
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, cast

from xlmrxl_train.errors import DataError
from xlmrxl_train.hashing import sha256

_SHOWN = 120  # characters of a value in a message
_BOM = b"\xef\xbb\xbf"


def matching_files(root: Path, pattern: str) -> list[Path]:
    """Return the files below `root` that match a pattern in which * stands for any text, sorted by name."""
    escaped = re.sub(r"([?\[])", r"[\1]", str(root / pattern)) if "*" in pattern else ""
    found = [Path(name) for name in sorted(glob.glob(escaped))] if escaped else [root / pattern]  # noqa: PTH207 (a pattern may be absolute)
    return [path for path in found if path.is_file()]


def missing_file(root: Path, pattern: str, key: str) -> DataError:
    """Say which file is not there, where it was looked for, and which names come near."""
    if not root.is_dir():
        return DataError(f"{root}: expected the folder of the data set's files, found none. Check data.root.")
    folder, *rest = _deepest_folder(root, Path(pattern))
    with readable(folder):
        names = sorted(path.name for path in folder.iterdir())
    near = difflib.get_close_matches(rest[0].name if rest else "", names, n=3, cutoff=0.5)
    hint = f"Near: {', '.join(near)}. " if near else ""
    return DataError(
        f"{root / pattern}: expected a file, found none in {folder}. {hint}Check data.root and {key}.",
    )


def missing_column(where: str, column: str, found: Iterable[str]) -> DataError:
    """Say which column is not there and which are."""
    return DataError(
        f"{where}: expected a column {column!r}, found {', '.join(map(shown, islice(found, 50))) or 'none'}. "
        "Set dataset.columns, or the columns, column_names, header and separator of its files."
    )


def shown(value: object) -> str:
    """Return a value for a message: quoted, and cut where it is long."""
    return cut(repr(value))


def cut(text: str) -> str:
    """Return a text for a message, cut where it is long."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text):,} characters)"


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading, unpacked where its name ends in .gz."""
    return cast("IO[bytes]", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what the system or gzip says about a file into a `DataError`."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: expected a whole gzip file, got a damaged one ({error}). Fetch it again.") from error
    except OSError as error:
        raise DataError(
            f"{path}: expected a file that can be read, got {error.strerror or error}. Check the path."
        ) from error


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    r"""Yield (line number from 1, text without its end) of a UTF-8 file.

    Lines end in \n or \r\n only, so that other separators of Unicode stay inside a text. A byte order mark is
    dropped.

    Raises:
        DataError: A byte is not UTF-8 or is null, or the file cannot be read.
    """
    with readable(path), open_bytes(path) as stream:
        for number, raw in enumerate(stream, start=1):
            line = raw.removeprefix(_BOM) if number == 1 else raw
            yield number, decoded(line, f"{path}:{number}")


def whole_text(path: Path) -> str:
    """Return the text of a UTF-8 file that has to be read at once.

    Raises:
        DataError: As `text_lines`.
    """
    return "\n".join(line for _, line in text_lines(path))


def content_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes; hashed once per path, size and time of change."""
    with readable(path):
        status = path.stat()
        key = (str(path), status.st_size, status.st_mtime_ns)
        if key not in _HASHES:
            with path.open("rb") as stream:
                _HASHES[key] = sha256(stream)
    return _HASHES[key]


_HASHES: dict[tuple[str, int, int], str] = {}


def decoded(line: bytes, where: str) -> str:
    """Return the text of a line without its end.

    Raises:
        DataError: It is not UTF-8, or has a null byte; the message begins with `where`.
    """
    if b"\0" in line:
        raise DataError(f"{where}: expected text, got a null byte. Save the file as UTF-8 text.")
    try:
        return line.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: expected UTF-8, got the byte 0x{line[error.start]:02x} at byte {error.start + 1} of the line. "
            "Save the file as UTF-8."
        ) from error


def _deepest_folder(root: Path, pattern: Path) -> list[Path]:
    """Return the deepest folder on the way to a pattern that exists, then what of the pattern is below it."""
    folder, parts = (Path(pattern.anchor), pattern.parts[1:]) if pattern.is_absolute() else (root, pattern.parts)
    for index, part in enumerate(parts):
        if not (folder / part).is_dir() or not os.access(folder / part, os.R_OK | os.X_OK):
            return [folder, *map(Path, parts[index:])]
        folder /= part
    return [folder]
