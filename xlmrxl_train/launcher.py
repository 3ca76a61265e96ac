"""What a launcher such as torchrun says in the environment. No torch: a fault in it is reported at once."""

import os
from dataclasses import dataclass

from xlmrxl_train.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Launched:
    """The processes that a launcher started, seen from one of them; without a launcher, this one alone."""

    rank: int
    size: int
    local_rank: int  # among the processes of this machine
    local_size: int  # how many these are


def launched() -> Launched:
    """Read the environment.

    Raises:
        ConfigError: With all faults: a variable is no number, too large beside another, or missing.
    """
    faults: list[str] = []

    def number(name: str, default: int, *, least: int = 0, most: int = 999_999) -> int:
        text = os.environ.get(name, str(default))
        if len(text) <= 6 and text.isdecimal() and least <= int(text) <= most:
            return int(text)
        faults.append(
            f"${name} must be a whole number from {least}, got {text[:40]!r}. Unset it, or start with torchrun."
        )
        return default

    here = Launched(
        size=number("WORLD_SIZE", 1, least=1),
        rank=number("RANK", 0),
        local_size=number("LOCAL_WORLD_SIZE", 1, least=1),
        local_rank=number("LOCAL_RANK", 0),
    )
    if not faults and here.rank >= here.size:
        faults.append(f"$RANK must be below $WORLD_SIZE = {here.size}, got {here.rank}. Start with torchrun.")
    if here.size > 1:
        number("MASTER_PORT", 0, most=65_535)
        faults += [
            f"${name} must be set where $WORLD_SIZE is {here.size}, got nothing. Start with torchrun."
            for name in ("RANK", "MASTER_ADDR", "MASTER_PORT")
            if not os.environ.get(name)
        ]
    if faults:
        raise ConfigError(*faults)
    return here


def is_first() -> bool:
    """Return whether this process talks to people: rank 0, or each one where the environment is wrong."""
    rank = os.environ.get("RANK", "0")
    return not rank.isdecimal() or not rank.strip("0")


# Who starts several processes, how many it says that there are, and which one this is.
_STARTERS = [
    ("srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
    ("mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("mpirun", "PMI_SIZE", "PMI_RANK"),
]


def check_copies() -> None:
    """Make sure that nobody started this process several times without saying which rank it is.

    Each would train alone, and all would write to one folder.

    Raises:
        ConfigError: Somebody did; the first of the processes has the message.
    """
    if "WORLD_SIZE" in os.environ:
        return
    for starter, name, number in _STARTERS:
        if (count := os.environ.get(name, "1")).isdecimal() and int(count) > 1:
            fault = (
                f"$WORLD_SIZE must be set where several processes are started, but {starter} started {count} "
                f"(${name}) without it. Let it start one torchrun per machine: launch/README.md says how."
            )
            raise ConfigError(*[fault] if os.environ.get(number, "0") == "0" else [])
    if "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_ADDR" in os.environ:
        raise ConfigError(
            "accelerate launch was asked for several processes, but started one ($MASTER_ADDR without $WORLD_SIZE). "
            "Give it --multi_gpu, also on CPUs, and leave --cpu out."
        )
