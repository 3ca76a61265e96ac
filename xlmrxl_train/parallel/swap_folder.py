"""The folder on a local disk that ZeRO-3 swaps to: fit for it, one run's alone, and empty again at its end."""

import fcntl
import os
import re
import resource
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from xlmrxl_train.config import Zero3NvmeConfig
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.launcher import launched
from xlmrxl_train.parallel.world import World
from xlmrxl_train.spelling import gigabytes

BUFFERS = 4  # what DeepSpeed holds in memory of a sub-group: weights, gradients, two moments
BYTES = 4  # float32
CAP_IPC_LOCK = 14  # number of the capability that frees from `ulimit -l`


@dataclass(frozen=True, kw_only=True, slots=True)
class SwapFolder:
    """One rank's place in `strategy.nvme_path`, held as long as its process lives."""

    files: Path
    lock: TextIO

    @classmethod
    def take(cls, config: Zero3NvmeConfig, world: World, elements: int) -> "SwapFolder":
        """Take a rank's place.

        Args:
            config: The strategy.
            world: Its files are removed when this is left.
            elements: That one rank trains.

        Raises:
            ConfigError: The folder cannot be used or is used already, or there is too little room or lockable memory.
        """
        check_lockable(config.sub_group_mb, elements)
        root = Path(str(config.nvme_path))
        folder = cls(files=root / "zero_stage_3" / "optimizer" / f"rank{world.rank}", lock=_locked(root, world.rank))
        left = sum(file.stat().st_size for file in folder.files.glob("*"))  # by a run that was killed; overwritten
        needed, free = BUFFERS * BYTES * elements * launched().local_size, shutil.disk_usage(root).free + left
        if needed > free:
            folder.lock.close()
            raise ConfigError(
                f"strategy.nvme_path must have room for weights, gradients and moments, {gigabytes(needed)} of the "
                f"ranks of this machine, {root} has {gigabytes(free)}. Choose another disk, or use more machines."
            )
        world.before_leaving(folder.remove)
        return folder

    def remove(self) -> None:
        """Remove this rank's files."""
        shutil.rmtree(self.files, ignore_errors=True)
        self.lock.close()


def check_lockable(sub_group_mb: float, elements: int) -> None:
    """Make sure that this process may lock the memory that DeepSpeed reads into; else it would be aborted.

    Raises:
        ConfigError: It may not.
    """
    limit = lockable()
    needed = int(BUFFERS * min(sub_group_mb * 1e6, BYTES * elements))
    if limit is not None and needed > limit:
        raise ConfigError(
            f"strategy=zero3_nvme locks {gigabytes(needed)} of memory in each process, this one may lock "
            f"{gigabytes(limit)}. Raise that (ulimit -l), or lower strategy.sub_group_mb."
        )


def lockable() -> int | None:
    """Return how many bytes this process may lock; None: as many as it likes."""
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    capabilities = int(re.search(r"^CapEff:\s*(\w+)", status, flags=re.MULTILINE)[1], 16)  # type: ignore[index]
    return None if limit == resource.RLIM_INFINITY or capabilities >> CAP_IPC_LOCK & 1 else limit


def _locked(root: Path, rank: int) -> TextIO:
    """Make the folder, see that it takes direct writes, and hold a rank's place in it."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        os.close(os.open(root / f"rank{rank}.lock", os.O_WRONLY | os.O_CREAT | os.O_DIRECT, 0o666))
        stream = (root / f"rank{rank}.lock").open("w")
    except OSError as error:
        raise ConfigError(
            f"strategy.nvme_path must be a folder that takes direct writes (O_DIRECT), got {root} "
            f"({error.strerror or error}). Choose a folder on a local disk that can be written."
        ) from error
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        stream.close()
        raise ConfigError(
            f"strategy.nvme_path must be for one run alone, but another process uses {root} as rank {rank}. "
            "Give each run a folder of its own."
        ) from None
    return stream
