"""Results, in order, to standard output or to a file that appears under its name when it is whole."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from xlmrxl_train.errors import ConfigError

Write = Callable[[str], object]


def check_output(path: str | None) -> None:
    """Make sure that a file can be written there, before anything is computed.

    Raises:
        ConfigError: It cannot.
    """
    if path is None:
        return
    target = Path(path)
    if target.is_dir() or not target.parent.is_dir():
        found = "a folder" if target.is_dir() else f"{path}, whose folder does not exist"
        raise ConfigError(f"--output must be a file in a folder that exists, got {found}. Choose another.")


@contextmanager
def output(path: str | None) -> Iterator[Write]:
    """Open a file, or standard output for None; a file is removed again where its writing ends early.

    Raises:
        ConfigError: The file cannot be written.
    """
    if path is None:
        yield sys.stdout.write
        sys.stdout.flush()
        return
    target = Path(path)
    partial = target.with_name(f".{target.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as stream:
            yield stream.write
        partial.replace(target)
    except OSError as error:
        raise ConfigError(f"--output must be a file that can be written, got {path} ({error.strerror}). "
                          "Choose another place.") from error  # fmt: skip
    finally:
        partial.unlink(missing_ok=True)
