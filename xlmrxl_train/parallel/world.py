"""The processes of a run: who am I, and the few things that ranks say to one another outside of gradients."""

import atexit
import itertools
import os
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import TypeVar

import torch
import torch.distributed as dist
import torch.distributed.nn  # before there is a group, which its default arguments would keep

from xlmrxl_train.config import FSDP2Config, StrategyConfig, ZeroConfig
from xlmrxl_train.errors import FROM_FIRST_RANK, ConfigError, RankLostError
from xlmrxl_train.launcher import launched

T = TypeVar("T")

_groups = itertools.count()  # each has a name of its own in the store, which keeps those of earlier ones
_before_leaving: list[Callable[[], None]] = []
LAST_CHANCE = 0.1  # seconds for threads of a group that an engine keeps to free what the last collectives carried
MEETING_TIME = timedelta(minutes=10)  # from the first rank to the last


@cache
def _store() -> dist.Store:
    """Return the launcher's key-value store; kept, because rank 0 may serve it to the others.

    Raises:
        ConfigError: The other ranks cannot be reached, or do not come.
    """
    try:
        store: dist.Store = next(iter(dist.rendezvous("env://", timeout=MEETING_TIME)))[0]
    except dist.DistError as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise ConfigError(
            f"$MASTER_ADDR and $MASTER_PORT must be where all ranks can meet, got {place}: "
            f"{str(error).splitlines()[0].rstrip('.')}. Start all ranks within {MEETING_TIME}, on a port that is free."
        ) from error
    # torchrun keeps one store for all its restarts, with the addresses of ranks that are gone.
    return dist.PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def from_first_rank(make: Callable[[], T]) -> T:
    """Return what `make` returns on rank 0, on every rank, before any process group exists.

    An exception on rank 0 is raised on every rank, so that no rank waits for one that has stopped.
    """
    here = launched()
    if here.size == 1:
        return make()
    store = dist.PrefixStore("compose", _store())
    if here.rank == 0:
        value: T | Exception
        try:
            value = make()
        except Exception as error:
            value = error
        store.set("value", pickle.dumps(value).hex())
    else:
        value = pickle.loads(bytes.fromhex(store.get("value").decode()))  # written by rank 0 of this job
    if isinstance(value, Exception):
        value.add_note(FROM_FIRST_RANK)
        raise value
    return value


@contextmanager
def naming_lost_ranks() -> Iterator[None]:
    """Turn what a backend raises when other ranks do not answer into a message.

    Raises:
        RankLostError: It says what to look at.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo/" not in str(error):  # gloo has no exception of its own
            raise
        raise RankLostError(
            f"another rank has failed or did not answer within strategy.timeout_minutes: {str(error).splitlines()[0]} "
            "See what the other ranks said first; the same command goes on from the last checkpoint."
        ) from error


@dataclass(kw_only=True)
class World:
    """The processes of a run, seen from one of them. Use `World.open`, and `close` at the end."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    group: dist.ProcessGroup | None = None  # whose collectives are used; None: the main one

    @classmethod
    def open(cls, config: StrategyConfig) -> "World":
        """Choose the device and join the process group where a launcher started several processes.

        Raises:
            ConfigError: The device is not there, the strategy is not for this number of processes, or the launcher's
                environment is wrong.
        """
        here = launched()
        size, local_rank = here.size, here.local_rank
        if config.name == "single" and size > 1:
            raise ConfigError(f"strategy=single runs in one process, the launcher started {size}. Use strategy=ddp.")
        if config.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("strategy.device=cuda needs a GPU, found none. Use strategy.device=cpu or auto.")
        cuda = config.device != "cpu" and torch.cuda.is_available()
        if cuda and local_rank >= torch.cuda.device_count():
            raise ConfigError(
                f"rank {local_rank} of this machine needs a GPU of its own, found {torch.cuda.device_count()}. "
                "Start as many processes as there are GPUs (torchrun --nproc-per-node), or use strategy.device=cpu."
            )
        device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
        if cuda:
            torch.cuda.set_device(device)
        if (size > 1 or isinstance(config, FSDP2Config | ZeroConfig)) and not dist.is_initialized():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if cuda else "gloo",
                store=dist.PrefixStore(f"group-{next(_groups)}", _store()) if size > 1 else dist.HashStore(),
                rank=here.rank,
                world_size=size,
                timeout=timedelta(minutes=config.timeout_minutes),
            )
            atexit.register(_leave)  # where an exception comes before `close`
        return cls(rank=here.rank, size=size, local_rank=local_rank, device=device)

    def beside(self) -> "World":
        """Return the same ranks with collectives of their own, on host memory, for a thread beside training."""
        group = dist.new_group(backend="gloo") if self.size > 1 else None
        return World(rank=self.rank, size=self.size, local_rank=self.local_rank, group=group)

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and talks to people."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            dist.barrier(self.group)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Add `values` over all ranks, in place, and return them."""
        if self.size > 1:
            dist.all_reduce(values, group=self.group)
        return values

    def any(self, flag: bool) -> bool:
        """Return, on every rank, whether `flag` holds on any of them."""
        return flag if self.size == 1 else bool(self.sum(torch.tensor([float(flag)])) > 0)

    def broadcast(self, value: T) -> T:
        """Return rank 0's value on every rank."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, group=self.group, device=torch.device("cpu"))
        return values[0]

    def gather(self, value: T) -> list[T]:
        """Return every rank's value, on rank 0; elsewhere an empty list."""
        if self.size == 1:
            return [value]
        gathered: list[T | None] = [None] * self.size
        dist.gather_object(value, gathered if self.is_first else None, group=self.group)
        return [item for item in gathered if item is not None] if self.is_first else []

    def first(self, action: Callable[[], T]) -> T:
        """Run `action` on rank 0 and return its result everywhere; its exception is raised on every rank."""
        outcome: tuple[T | None, Exception | None] = (None, None)
        if self.is_first:
            try:
                outcome = (action(), None)
            except Exception as error:
                outcome = (None, error)
        value, fault = self.broadcast(outcome)
        if fault is not None:
            fault.add_note(FROM_FIRST_RANK)
            raise fault
        return value  # type: ignore[return-value]

    def before_leaving(self, action: Callable[[], None]) -> None:
        """Let `action` be called before the process group is left: it drops what holds the group outside of Python."""
        _before_leaving.append(action)

    def close(self) -> None:
        """Leave the process group."""
        _leave()


def _leave() -> None:
    """Free the process group, and with it its threads, where Python frees it: torch lets go of Python's lock there.

    Were it freed by something else that holds the lock, it would wait for threads that wait for the lock; and threads
    that are left when Python ends are aborted.
    """
    while _before_leaving:
        _before_leaving.pop()()
    if dist.is_initialized():
        dist.destroy_process_group()
        time.sleep(LAST_CHANCE)
