"""Ends a job that has stopped moving, after every rank has said where it is.

When one rank hangs, the others soon wait for it inside a collective, and nothing more is said until that times out. So
each process has a thread that counts the moves of all ranks through the launcher's store. As long as any rank moves,
all is well: one may read data for an hour while the others wait for it.
"""

import json
import os
import socket
import sys
import threading
import time
import traceback
from typing import Any

import torch.distributed as dist

from xlmrxl_train.progress import progress

STALLED = 1  # exit code: nobody's mistake, so a launcher may start the job again
LOOKS = 20  # within the time limit
LONGEST_PAUSE = 10.0  # seconds between two looks
PATIENCE = 5.0  # seconds for the other ranks to speak


class Watchdog:
    """The thread of one rank. It looks at the others' moves and at `progress`, the main thread's."""

    def __init__(self, store: dist.Store, rank: int, size: int, minutes: float) -> None:
        """Begin to watch.

        Args:
            store: Of one's own, the same place for all ranks.
            rank: Of this process.
            size: How many ranks there are.
            minutes: Without a move of any rank, after which the job is ended.
        """
        self.store, self.rank, self.size, self.minutes = store, rank, size, minutes
        self.pause = min(LONGEST_PAUSE, 60 * minutes / LOOKS)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()
        self._thread.join(PATIENCE)

    def _watch(self) -> None:
        # Looks are counted, not seconds, so that a job that was suspended is not ended when it is woken up.
        without_news, moves, of_all = 0, -1, -1
        while not self._closed.wait(self.pause):
            moved, moves = progress.moves != moves or progress.ends_itself > 0, progress.moves
            before, of_all = of_all, self._moves_of_all(int(moved))
            without_news = 0 if moved or of_all != before else without_news + 1
            if without_news * self.pause >= 60 * self.minutes:
                self._end()

    def _moves_of_all(self, own: int) -> int:
        """Add to the moves of all ranks and return them; a constant where the store is gone with its machine."""
        try:
            return self.store.add("moves", own)
        except RuntimeError:
            return -1

    def _end(self) -> None:
        """Say where this rank is, wait until the others have said it too, and end the process."""
        try:
            self._print(self.report())
            own = {"host": socket.gethostname(), "collectives": progress.collectives, "where": progress.describe()}
            self.store.set(f"where/{self.rank}", json.dumps(own))
            end = time.monotonic() + PATIENCE + 2 * self.pause
            spoken = self.store.add("spoken", 1)
            while spoken < self.size and time.monotonic() < end:
                time.sleep(0.1)
                spoken = self.store.add("spoken", 0)
            if self.rank == 0:
                self._print(self.summary())
        finally:  # also where the store is gone with its machine
            os._exit(STALLED)

    def report(self) -> str:
        """Return where this rank is, with the stack of its main thread."""
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        stack = "".join(traceback.format_stack(frame)) if frame else "  no stack\n"
        return (
            f"rank {self.rank} of {self.size} on {socket.gethostname()}: error: no rank has moved for "
            f"{self.minutes:g} minutes (strategy.watchdog_minutes)\n"
            f"rank {self.rank} is here: {progress.describe()}\n{stack}"
        )

    def summary(self) -> str:
        """Return which ranks the others wait for: those that do not answer, else those with the fewest collectives."""
        said: dict[int, dict[str, Any]] = {}
        for rank in range(self.size):
            if self.store.check([f"where/{rank}"]):
                said[rank] = json.loads(self.store.get(f"where/{rank}"))
        silent = [rank for rank in range(self.size) if rank not in said]
        fewest = min(entry["collectives"] for entry in said.values())
        behind = {rank: entry for rank, entry in said.items() if entry["collectives"] == fewest}
        lines = [f"no answer from rank {rank}: its process is gone or does not run" for rank in silent]
        if len(behind) < len(said):
            lines += [f"behind the others: rank {rank} on {at['host']}: {at['where']}" for rank, at in behind.items()]
        elif not silent:
            lines.append("all ranks have entered the same collectives: their stacks say which of them waits for which")
        return "".join(f"watchdog: {line}\n" for line in lines[:20])

    def _print(self, text: str) -> None:
        os.write(2, text.encode())  # in one piece, whatever state sys.stderr is in
