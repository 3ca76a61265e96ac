"""Results, in order, to standard output or to a file that appears under its name when it is whole."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from xlmrxl_train.errors import ConfigError
from xlmrxl_train.hub import local_path

Write = Callable[[str], object]


def check_output(path: str | None) -> None:
    """Make sure that a file can be written there, before anything is computed.

    Raises:
        ConfigError: It cannot.
    """
    if path is None:
        if sys.stdout is None:  # `xlmrxl run ... >&-`
            raise ConfigError("--output must be given where standard output is closed, got none. Write --output FILE.")
        return
    target = _target(path)
    if target.is_dir() or not target.parent.is_dir():
        found = "a folder" if target.is_dir() else f"{path}, whose folder does not exist"
        raise ConfigError(f"--output must be a file in a folder that exists, got {found}. Choose another.")


@contextmanager
def output(path: str | None) -> Iterator[Write]:
    """Open a file, or standard output for None; a file is removed again where its writing ends early.

    A device or a pipe (/dev/null, >(program)) is written into: nothing may take its place.

    Raises:
        ConfigError: The file cannot be written.
    """
    if path is None:
        try:
            yield sys.stdout.write
            sys.stdout.flush()
        except UnicodeEncodeError as error:
            raise ConfigError(f"standard output must take UTF-8, got {error.encoding}. "
                              "Set PYTHONIOENCODING=utf-8, or write --output FILE.") from None  # fmt: skip
        return
    target = _target(path)
    replaced = target.is_file() or not target.exists()
    partial = target.with_name(f".{target.name[:50]}.partial") if replaced else target
    try:
        with partial.open("w", encoding="utf-8") as stream:
            yield stream.write
        if replaced:
            partial.replace(target)
    except OSError as error:
        raise ConfigError(f"--output must be a file that can be written, got {path} ({error.strerror}). "
                          "Choose another place.") from error  # fmt: skip
    finally:
        if replaced:
            partial.unlink(missing_ok=True)


def _target(path: str) -> Path:
    """Return where the bytes go: a link to a file stays one.

    Raises:
        ConfigError: The path is longer than file systems allow, or its home folder is not known.
    """
    named = local_path(path, "--output")
    return named if named.exists() and not named.is_file() else Path(os.path.realpath(named))
