"""Tells one tracker what stands in metrics.jsonl, in a thread of its own.

The file is the queue: training only ever writes to it, so that a tracker which is slow, down or hangs costs training
nothing and no memory, and loses nothing: it is told the rest later, at the latest when the run goes on.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from xlmrxl_train.track.final_files import final_files
from xlmrxl_train.track.rows import Position, Rows

POLL = 1.0  # seconds between looks at the file
LONGEST_PAUSE = 60.0  # seconds between tries of a tracker that fails; they begin with one


class Target(Protocol):
    """A tracker, as seen from here. Every method may take any time and raise anything."""

    name: str
    where: str  # where a person finds it

    def start(self) -> None:
        """Begin, or go on with, the tracker's run."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Take the numbers of a step."""

    def keep(self, files: Sequence[Path]) -> None:
        """Take the files of a finished run."""

    def finish(self) -> None:
        """End the tracker's run; all that was logged is kept or sent."""

    def abandon(self) -> None:
        """Let go of a tracker that does not answer, so that the process can end."""


class Follower:
    """The thread of one tracker."""

    def __init__(
        self,
        target: Target,
        path: Path,
        *,
        after: Position,
        told: Callable[[Position], None],
        say: Callable[[str], None],
    ) -> None:
        """Follow `path`, from the first row whose position is beyond `after`.

        Args:
            target: Who is told.
            path: metrics.jsonl.
            after: How far the tracker knows the run already; the file holds these lines too.
            told: Called with the position of each row that the tracker took.
            say: Says a line to a person: where the tracker is, and once that it fails.
        """
        self.target = target
        self.path = path
        self.after = after
        self.told = told
        self.say = say
        self.warned = False
        self.closing = threading.Event()
        self.busy_since: float | None = None  # while the tracker has the floor
        self.lines = 0  # whose rows the tracker has taken
        self.error: BaseException | None = None  # of the last try
        self.thread = threading.Thread(target=self._run, name=f"tracker {target.name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self.thread.start()

    def close(self) -> None:
        """Ask the thread to end when it has told what is there; metrics.jsonl gets no more lines."""
        self.closing.set()

    def complain(self, text: str) -> None:
        """Warn, unless that was done before."""
        if not self.warned:
            self.warned = True
            self.say(f"tracker {self.target.name} {text}; training and metrics.jsonl go on without it")

    @property
    def missing(self) -> int:
        """Return the number of lines that the tracker was not told."""
        try:
            with self.path.open("rb") as stream:
                return sum(1 for _ in stream) - self.lines
        except OSError:  # metrics.jsonl is gone, and its end is not the place to complain
            return 0

    def _run(self) -> None:
        try:
            if not self._insist(self.target.start):
                return
            self.say(f"tracker {self.target.name}: {self.target.where}")
            if self._tell_all() and self._insist(self._keep_files):
                self._insist(self.target.finish)
        except (OSError, ValueError) as error:  # of metrics.jsonl
            self.error = error
            self.complain(f"stopped ({short(error)})")

    def _tell_all(self) -> bool:
        rows, read = Rows(), 0
        for line in self._follow():
            read += 1
            for row in rows.add(json.loads(line)):
                if row.position > self.after and not self._tell(row.position, row.values):
                    return False
            self.lines = self.lines if rows.values else read
        for row in rows.rest():
            if row.position > self.after and not self._tell(row.position, row.values):
                return False
        self.lines = read
        return True

    def _tell(self, position: Position, values: dict[str, float]) -> bool:
        def tell() -> None:
            self.target.log(position[0], values)
            self.told(position)

        return self._insist(tell)

    def _keep_files(self) -> None:
        if (found := final_files(self.path.parent)) and found[1] != self.after:
            self.target.keep(found[0])
            self.told(found[1])

    def _insist(self, action: Callable[[], None]) -> bool:
        """Try until it works; return False if it did not before the end of the run."""
        pause = 1.0
        while True:
            self.busy_since = time.monotonic()
            try:
                action()
            except (Exception, SystemExit) as error:
                self.error = error
                self.complain(f"fails ({short(error)})")
            else:
                self.error = None
                return True
            finally:
                self.busy_since = None
            if self.closing.wait(pause):
                return False
            pause = min(2 * pause, LONGEST_PAUSE)

    def _follow(self) -> Iterator[bytes]:
        """Yield whole lines as they come, until the run ends."""
        with self.path.open("rb") as stream:
            line = b""
            while True:
                closing = self.closing.is_set()  # before reading: what was written before it is read
                part = stream.readline()
                line += part
                if line.endswith(b"\n"):
                    yield line
                    line = b""
                elif closing and not part:
                    return
                else:
                    self.closing.wait(POLL)


def short(error: BaseException) -> str:
    """Return an error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
