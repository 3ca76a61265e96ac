"""What must be the same on every rank: a mix of machines would fail late, or train on without a word."""

import hashlib
import platform
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from xlmrxl_train import __version__
from xlmrxl_train.parallel.board import Statement, name_ranks

SAME_VERSIONS = "Install the same versions on every machine, or start all ranks in the same environment"


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python, torch, this program and `packages`."""
    own = {"python": platform.python_version(), "torch": torch.__version__, "xlmrxl_train": _own_version()}
    return own | {package: _version(package) for package in packages}


@cache
def _own_version() -> str:
    """Return version and a hash of the code, since two checkouts of one version may differ."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    return f"{__version__} (code {digest.hexdigest()[:12]})"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def differences(statements: list[Statement], *, remedy: str) -> list[str]:
    """Return a line for each thing that is not the same for all; every statement is a dictionary of texts."""
    things = dict.fromkeys(name for statement in statements for name in statement.value)
    return [line for name in things if (line := _difference(name, statements, remedy))]


def _difference(name: str, statements: list[Statement], remedy: str) -> str | None:
    by_value: dict[str, list[Statement]] = {}
    for statement in statements:
        by_value.setdefault(statement.value.get(name, "none"), []).append(statement)
    if len(by_value) == 1:
        return None
    got = [f"{value} on {name_ranks(who)}" for value, who in by_value.items()]
    return f"{name} must be the same on every rank, got {'; '.join(got)}. {remedy}."


same_versions = partial(differences, remedy=SAME_VERSIONS)
