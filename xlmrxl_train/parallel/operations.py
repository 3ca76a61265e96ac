"""DeepSpeed's operations in C++, which torch compiles at their first use and keeps in ~/.cache/torch_extensions.

torch marks a compilation by a file, "lock", which a compilation that is killed leaves behind. Whoever comes later waits
for it without end and without a word. So processes of ours take turns under a lock that ends with its process, and
whoever has the turn looks whether torch's is held by a process that lives.
"""

import fcntl
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.utils import cpp_extension

from xlmrxl_train.errors import ConfigError
from xlmrxl_train.progress import progress

logger = logging.getLogger(__name__)

SECOND_LOOK = 2.0  # seconds: torch closes its file just before it removes it


def compile_operation(builder: Any, *, also: str, instead: str) -> None:
    """Compile an operation if that has not been done on this machine, and load it.

    Args:
        builder: DeepSpeed's.
        also: Another operation that it compiles first.
        instead: What else a user can do, "or ...".

    Raises:
        ConfigError: It cannot be compiled, or a compilation that was killed is in the way.
    """
    name: str = builder.NAME
    folders = [Path(cpp_extension._get_build_directory(operation, verbose=False)) for operation in (also, name)]
    what = f"DeepSpeed's operation {name}"
    with _turn(folders[-1].parent, name), _own_ninja():
        for folder in folders:
            refuse_left_over(folder / "lock", what)
        if not (folders[-1] / f"{name}.so").exists():
            logger.warning("compiling %s, once on this machine; that may take minutes", what)
        try:
            with progress.trusting(f"compiling {what}, once on this machine, or loading it"):
                builder.load(verbose=False)
        except (RuntimeError, ImportError) as error:
            raise ConfigError(f"{what} could not be compiled: {_reason(str(error))}. Mend that, {instead}.") from error


@contextmanager
def _turn(folder: Path, name: str) -> Iterator[None]:
    """Let one process of ours at a time compile."""
    with (folder / f"{name}.turn").open("w") as stream:
        with progress.trusting("waiting for another process that compiles the same operation"):
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextmanager
def _own_ninja() -> Iterator[None]:
    """Let torch find the ninja that DeepSpeed has installed beside Python, wherever $PATH leads.

    Another version of it would take what this one has compiled for out of date, and compile it again.
    """
    path, beside = os.environ.get("PATH", ""), Path(sys.executable).parent
    if (beside / "ninja").exists():
        os.environ["PATH"] = f"{beside}{os.pathsep}{path}"
    try:
        yield
    finally:
        os.environ["PATH"] = path


def refuse_left_over(lock: Path, what: str) -> None:
    """Make sure that torch would not wait for a process that is gone.

    Raises:
        ConfigError: The file is there, and no process of this machine has it open.
    """
    if not _left_over(lock):
        return
    time.sleep(SECOND_LOOK)
    if _left_over(lock):
        raise ConfigError(
            f"{lock} must be held by a process that compiles {what}, but none on this machine has it open: one was "
            "killed, and DeepSpeed would wait for it without end. Remove that file."
        )


def _left_over(lock: Path) -> bool:
    return lock.exists() and not any(_opens(process, lock) for process in Path("/proc").glob("[0-9]*"))


def _opens(process: Path, file: Path) -> bool:
    """Whether a process has a file open; those of other people are not seen, nor do they share the folder."""
    try:
        return any(descriptor.samefile(file) for descriptor in (process / "fd").iterdir())
    except OSError:  # the process, a descriptor, or the file has gone
        return False


def _reason(said: str) -> str:
    """Return the line that says why, of what torch and a compiler say."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return next((line for line in lines if "error:" in line.lower()), lines[0])[:300].rstrip(".")
