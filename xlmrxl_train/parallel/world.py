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
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.distributed.nn  # before there is a group, which its default arguments would keep

from xlmrxl_train.config import FSDP2Config, StrategyConfig, ZeroConfig
from xlmrxl_train.errors import FROM_FIRST_RANK, ConfigError, RankLostError, UserError
from xlmrxl_train.launcher import launched
from xlmrxl_train.parallel.agreement import same_versions, versions
from xlmrxl_train.parallel.board import Board, Statement, name_ranks
from xlmrxl_train.parallel.meeting import meet
from xlmrxl_train.parallel.watchdog import Watchdog
from xlmrxl_train.progress import progress

T = TypeVar("T")

_names = itertools.count()  # of parts of the store, which keeps those of earlier worlds
_before_leaving: list[Callable[[], None]] = []
LAST_CHANCE = 0.1  # seconds for threads of a group that an engine keeps to free what the last collectives carried
ALLOCATOR_KEYS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")  # of the environment
MEETING_TIME = timedelta(minutes=10)  # from the first rank to the last


@cache
def _store() -> dist.Store:
    """Return the launcher's key-value store; kept, because rank 0 may serve it to the others.

    Raises:
        ConfigError: The other ranks cannot be reached, or do not come.
    """
    here = launched()
    try:
        store: dist.Store = next(iter(dist.rendezvous("env://", timeout=MEETING_TIME)))[0]
        name = meet(store, here.rank, here.size, MEETING_TIME)
    except dist.DistError as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise ConfigError(
            f"$MASTER_ADDR and $MASTER_PORT must be where all ranks can meet, got {place}: "
            f"{str(error).splitlines()[0].rstrip('.')}. Start all ranks within {MEETING_TIME}, on a port that is free."
        ) from error
    return dist.PrefixStore(name, store)


def _own_store(name: str) -> dist.Store:
    """Return a part of the store with a connection of its own, so that threads do not wait for one another."""
    store: dist.Store = _store().clone()  # type: ignore[attr-defined]  # torch's types lack it
    return dist.PrefixStore(f"{name}-{next(_names)}", store)


def from_first_rank(make: Callable[[], T]) -> T:
    """Return what `make` returns on rank 0, on every rank, before any process group exists.

    An exception on rank 0 is raised on every rank, so that no rank waits for one that has stopped.

    Raises:
        ConfigError: The ranks have different versions.
    """
    here = launched()
    if here.size == 1:
        return make()
    Board(_own_store("versions"), here.rank, here.size).examine(versions(), same_versions)  # or the value is garbled
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
    board: Board | None = None  # where there are several

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
            if not any(name in os.environ for name in ALLOCATOR_KEYS):  # every batch has another number of tokens
                os.environ[ALLOCATOR_KEYS[0]] = "expandable_segments:True"
            torch.cuda.set_device(device)
        if (size > 1 or isinstance(config, FSDP2Config | ZeroConfig)) and not dist.is_initialized():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if cuda else "gloo",
                store=dist.PrefixStore(f"group-{next(_names)}", _store()) if size > 1 else dist.HashStore(),
                rank=here.rank,
                world_size=size,
                timeout=timedelta(minutes=config.timeout_minutes),
            )
            atexit.register(_leave)  # where an exception comes before `close`
        world = cls(rank=here.rank, size=size, local_rank=local_rank, device=device)
        if size > 1:
            world.board = Board(_own_store("board"), world.rank, size)
            if minutes := min(config.watchdog_minutes or 0.0, config.timeout_minutes / 2):
                world.before_leaving(Watchdog(_own_store("watchdog"), world.rank, size, minutes).close)
        return world

    def beside(self) -> "World":
        """Return the same ranks with collectives of their own, on host memory, for a thread beside training."""
        if self.size == 1:
            return World(rank=self.rank, size=self.size, local_rank=self.local_rank)
        return World(
            rank=self.rank,
            size=self.size,
            local_rank=self.local_rank,
            group=dist.new_group(backend="gloo"),
            board=Board(_own_store("beside"), self.rank, self.size),
        )

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and talks to people."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            with progress.collective("barrier"):
                dist.barrier(self.group)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Add `values` over all ranks, in place, and return them."""
        if self.size > 1:
            with progress.collective("sum"):
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
        with progress.collective("broadcast"):
            dist.broadcast_object_list(values, group=self.group, device=torch.device("cpu"))
        return values[0]

    def gather(self, value: T) -> list[T]:
        """Return every rank's value, on rank 0; elsewhere an empty list."""
        if self.size == 1:
            return [value]
        gathered: list[T | None] = [None] * self.size
        with progress.collective("gather"):
            dist.gather_object(value, gathered if self.is_first else None, group=self.group)
        return [item for item in gathered if item is not None] if self.is_first else []

    def first(self, action: Callable[[], T]) -> T:
        """Run `action` on rank 0 and return its result everywhere; its exception is raised on every rank.

        It may take any time: the others wait for it outside of a collective.
        """
        outcome: tuple[T | None, Exception | None] = (None, None)
        if self.is_first:
            try:
                outcome = (action(), None)
            except Exception as error:
                outcome = (None, error)
        if self.board:
            self.board.wait_for_first()
        value, fault = self.broadcast(outcome)
        if fault is not None:
            fault.add_note(FROM_FIRST_RANK)
            raise fault
        return value  # type: ignore[return-value]

    def together(self, action: Callable[[], T]) -> T:
        """Run `action` on every rank, for any time, and return its result; where it fails on one it fails on all.

        Raises:
            UserError: What `action` raised, on every rank.
        """
        if self.board is None:
            return action()
        fault: UserError | None = None
        try:
            value = action()
        except UserError as error:
            fault = error
        self.board.examine(None if fault is None else str(fault), _faults)
        return value

    def examine(self, value: Any, faults_of: Callable[[list[Statement]], list[str]]) -> None:
        """Let rank 0 see what each rank says about itself, and refuse it for all of them; see `Board.examine`.

        Raises:
            ConfigError: On every rank, with what `faults_of` returned.
        """
        if self.board:
            self.board.examine(value, faults_of)

    def before_leaving(self, action: Callable[[], None]) -> None:
        """Let `action` be called before the process group is left: it drops what holds the group outside of Python.

        The last one given is called first; one that is given again is called once.
        """
        if action not in _before_leaving:
            _before_leaving.append(action)

    def close(self) -> None:
        """Leave the process group."""
        _leave()


def _leave() -> None:
    """Free the process group, and with it its threads, where Python frees it: torch lets go of Python's lock there.

    Were it freed by something else that holds the lock, it would wait for threads that wait for the lock; and threads
    that are left when Python ends are aborted.
    """
    joined = dist.is_initialized()
    while _before_leaving:
        _before_leaving.pop()()
    if dist.is_initialized():
        dist.destroy_process_group()
    if joined:
        time.sleep(LAST_CHANCE)


def _faults(statements: list[Statement]) -> list[str]:
    """Return what the ranks could not do; each fault once, with the ranks that have it where others have not."""
    faults = dict.fromkeys(statement.value for statement in statements if statement.value is not None)
    who = {fault: [statement for statement in statements if statement.value == fault] for fault in faults}
    return [fault if len(ranks) == len(statements) else f"{name_ranks(ranks)}: {fault}" for fault, ranks in who.items()]
