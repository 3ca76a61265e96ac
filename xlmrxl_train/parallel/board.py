"""What ranks tell one another through the launcher's key-value store, outside of collectives.

It works before there is a process group, and nobody has to come within a time limit: a rank may read data for an hour
while the others wait. `watchdog.py` ends the wait for a rank that has stopped.
"""

import json
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from typing import Any

import torch.distributed as dist

from xlmrxl_train.errors import FROM_FIRST_RANK, ConfigError
from xlmrxl_train.progress import progress

LOOK_UP = timedelta(seconds=5)  # how long a wait keeps Python from handling a signal
SHOWN_HOSTS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement:
    """What one rank says about itself."""

    rank: int
    host: str
    value: Any  # None, a number, a text, or a list or dictionary of these


class Board:
    """Keys and values that all ranks see. Every rank calls the same methods in the same order."""

    def __init__(self, store: dist.Store, rank: int, size: int) -> None:
        """Use a store of one's own: a wait would keep others from using it."""
        self.store = store
        self.rank = rank
        self.size = size
        self._turn = 0

    def wait_for_first(self) -> None:
        """Wait until rank 0 comes here too; it does not wait."""
        self._turn += 1
        with progress.collective("rank 0's turn"):
            if self.rank == 0:
                self.store.set(f"{self._turn}", "here")
            else:
                self._read(f"{self._turn}")

    def examine(self, value: Any, faults_of: Callable[[list[Statement]], list[str]]) -> None:
        """Let rank 0 see what each rank says about itself, and refuse it for all of them.

        Args:
            value: Of this rank.
            faults_of: Returns what is wrong with the statements of all ranks, in the order of ranks; one line each.

        Raises:
            ConfigError: With these lines, on every rank.
        """
        self._turn += 1
        key, own = f"{self._turn}", {"rank": self.rank, "host": socket.gethostname(), "value": value}
        with progress.collective("comparison"):
            self.store.set(f"{key}/{self.rank}", json.dumps(own))
            if self.rank == 0:
                said = [json.loads(self._read(f"{key}/{rank}")) for rank in range(self.size)]
                self.store.set(key, json.dumps(faults_of([Statement(**statement) for statement in said])))
            faults = json.loads(self._read(key))
        if faults:
            fault = ConfigError(*faults)
            fault.add_note(FROM_FIRST_RANK)
            raise fault

    def _read(self, key: str) -> bytes:
        """Wait for a key, however long that takes."""
        whom = f"rank {key.partition('/')[2] or 0}"
        with progress.doing(f"waiting for {whom}"):
            while True:
                try:
                    self.store.wait([key], LOOK_UP)
                except dist.DistStoreError:  # not yet
                    continue
                value: bytes = self.store.get(key)
                return value


def name_ranks(statements: Iterable[Statement]) -> str:
    """Return "rank 0 (node-a)", or "ranks 8-15 (node-b), 16-23 (node-c)", for statements in the order of ranks."""
    ordered = list(statements)
    places = [
        f"{_numbers([statement.rank for statement in group])} ({host})"
        for host, group in groupby(ordered, key=lambda statement: statement.host)
    ]
    more = [f"{len(places) - SHOWN_HOSTS} more machines"] if len(places) > SHOWN_HOSTS else []
    return f"rank{'s' if len(ordered) > 1 else ''} {', '.join([*places[:SHOWN_HOSTS], *more])}"


def _numbers(ranks: Sequence[int]) -> str:
    """Return "0-3, 7" for [0, 1, 2, 3, 7]."""
    runs = [[rank for _, rank in group] for _, group in groupby(enumerate(ranks), key=lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
