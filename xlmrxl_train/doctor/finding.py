"""What a check found."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

GOOD, LOOK, RED = "ok", "look", "red"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One line of the doctor's."""

    name: str
    state: str  # ok: as it should be; look: it may be meant so; red: a run will fail
    found: str
    remedy: str = ""


def good(name: str, found: str) -> Finding:
    """Return a green line."""
    return Finding(name=name, state=GOOD, found=found)


def look(name: str, found: str, remedy: str) -> Finding:
    """Return a line that a person should read, and a script need not."""
    return Finding(name=name, state=LOOK, found=found, remedy=remedy)


def red(name: str, found: str, remedy: str) -> Finding:
    """Return a line for which the exit code is 1."""
    return Finding(name=name, state=RED, found=found, remedy=remedy)


def existing(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that exists."""
    folder = folder.expanduser().absolute()
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def free_gigabytes(folder: Path) -> float:
    """Return what a folder's disk has left for this user."""
    return shutil.disk_usage(folder).free / 1e9


def writable(folder: Path) -> bool:
    """Return whether files can be made in a folder."""
    return os.access(folder, os.W_OK | os.X_OK)
