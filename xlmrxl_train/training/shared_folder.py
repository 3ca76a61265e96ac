"""Whether all ranks see one run folder. All of them write checkpoints, which would be cut in pieces otherwise."""

import secrets
import time
from functools import partial
from pathlib import Path

from xlmrxl_train.parallel import Statement, World, name_ranks

SECONDS = 10.0  # what NFS may take to show a new file to another machine
PAUSE = 0.2


def check_shared(folder: Path, world: World) -> None:
    """Make sure that what rank 0 writes into `folder` is there on every rank.

    Raises:
        ConfigError: It names the ranks and machines where it is not; on every rank.
    """
    if world.size == 1:
        return
    name = world.first(lambda: _written(folder))
    try:
        seen = world.is_first or _appears(folder, name)
        world.examine({"folder": str(folder.absolute()), "seen": seen}, partial(_faults, folder))
    finally:
        if world.is_first:
            (folder / name).unlink(missing_ok=True)


def _written(folder: Path) -> str:
    name = f".seen-{secrets.token_hex(8)}"
    (folder / name).touch()
    return name


def _appears(folder: Path, name: str) -> bool:
    end = time.monotonic() + SECONDS
    while True:
        # The folder is read, since NFS remembers for a while that a name was not there.
        if folder.is_dir() and any(path.name == name for path in folder.iterdir()):
            return True
        if time.monotonic() > end:
            return False
        time.sleep(PAUSE)


def _faults(folder: Path, statements: list[Statement]) -> list[str]:
    first, blind = statements[0], [statement for statement in statements if not statement.value["seen"]]
    if not blind:
        return []
    there = ", ".join(dict.fromkeys(statement.value["folder"] for statement in blind))
    return [
        f"run.dir={folder} must be one folder for all ranks, but {name_ranks(blind)} (in {there}) did not see what "
        f"{name_ranks([first])} wrote in {first.value['folder']}. Put it on a file system that all machines share."
    ]
