"""The processes of a run: who am I, and the few things that ranks say to one another outside of gradients."""

import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import TypeVar

import torch
import torch.distributed as dist

from xlmrxl_train.config import StrategyConfig
from xlmrxl_train.errors import FROM_FIRST_RANK, ConfigError, RankLostError

T = TypeVar("T")

_LEFT: list[dist.ProcessGroup] = []  # groups that were left, kept to the end of the process; `World.close` says why


def launched_ranks() -> int:
    """Return how many processes the launcher started, 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@cache
def _store() -> dist.Store:
    """Return the launcher's key-value store; kept, because rank 0 may serve it to the others."""
    store: dist.Store = next(iter(dist.rendezvous("env://", timeout=timedelta(minutes=10))))[0]
    return store


def from_first_rank(make: Callable[[], T]) -> T:
    """Return what `make` returns on rank 0, on every rank, before any process group exists.

    An exception on rank 0 is raised on every rank, so that no rank waits for one that has stopped.
    """
    if launched_ranks() == 1:
        return make()
    store = dist.PrefixStore("compose", _store())
    if os.environ["RANK"] == "0":
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

    @classmethod
    def open(cls, config: StrategyConfig) -> "World":
        """Choose the device and join the process group where a launcher started several processes.

        Raises:
            ConfigError: The device is not there, or the strategy is not for this number of processes.
        """
        size, local_rank = launched_ranks(), int(os.environ.get("LOCAL_RANK", "0"))
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
        if size > 1 and not dist.is_initialized():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if cuda else "gloo",
                store=dist.PrefixStore("group", _store()),
                rank=int(os.environ["RANK"]),
                world_size=size,
                timeout=timedelta(minutes=config.timeout_minutes),
            )
        return cls(rank=int(os.environ.get("RANK", "0")), size=size, local_rank=local_rank, device=device)

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and talks to people."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            dist.barrier()

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Add `values` over all ranks, in place, and return them."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Return, on every rank, whether `flag` holds on any of them."""
        return flag if self.size == 1 else bool(self.sum(torch.tensor([float(flag)])) > 0)

    def broadcast(self, value: T) -> T:
        """Return rank 0's value on every rank."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, device=torch.device("cpu"))
        return values[0]

    def gather(self, value: T) -> list[T]:
        """Return every rank's value, on rank 0; elsewhere an empty list."""
        if self.size == 1:
            return [value]
        gathered: list[T | None] = [None] * self.size
        dist.gather_object(value, gathered if self.is_first else None)
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

    def close(self) -> None:
        """Leave the process group.

        The object outlives it: DDP's reducer would be the last to drop it, and waits for gloo's threads while it holds
        the lock of Python's interpreter, which such a thread may need to free a tensor. Then neither ever goes on.
        """
        if self.size > 1 and dist.is_initialized():
            if dist.group.WORLD is not None:
                _LEFT.append(dist.group.WORLD)
            dist.destroy_process_group()
