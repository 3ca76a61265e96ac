"""Stopping on purpose: by a signal or a deadline, at the next point where nothing is lost."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FrameType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

CTRL_C = "Ctrl-C"
SIGNALS = {
    signal.SIGTERM: "SIGTERM",  # what schedulers send before they kill
    signal.SIGUSR1: "SIGUSR1",  # SLURM's --signal=B:USR1@60
    signal.SIGINT: CTRL_C,
}


class Stopped(Exception):  # noqa: N818  (a request, not an error)
    """Work that can be done again was left because a stop was requested."""


def until_stopped(rows: Callable[P, Iterator[T]], stop: Callable[[], bool]) -> Callable[P, Iterator[T]]:
    """Return `rows`, the function that reads a split and language, so that it raises `Stopped` when `stop` says so."""

    def read(*args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        for row in rows(*args, **kwargs):
            if stop():
                raise Stopped
            yield row

    return read


class StopRequest:
    """Whether this process was asked to stop, and why.

    Use it as a context manager: signals are handled inside, and as before outside. A second Ctrl-C ends the process
    at once.
    """

    def __init__(self, max_hours: float | None, say: Callable[[str], None]) -> None:
        self.reason: str | None = None
        self.say = say
        self.deadline = None if max_hours is None else time.monotonic() + 3600 * max_hours
        self.hours = max_hours

    def __enter__(self) -> "StopRequest":
        self.before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        """Return whether to stop."""
        if self.reason is None and self.deadline is not None and time.monotonic() >= self.deadline:
            self.reason = f"train.max_hours={self.hours}"
        return self.reason is not None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.reason is not None:
            raise KeyboardInterrupt
        if self.reason is not None:  # a launcher and a scheduler may both send one
            return
        self.reason = SIGNALS[signal.Signals(number)]
        hint = "; press Ctrl-C again to stop at once" if number == signal.SIGINT else ""
        text = f"{self.reason}: saving and stopping at the next step{hint}"
        # In a thread: this one may have been interrupted while it wrote, with the locks for that in its hands.
        threading.Thread(target=self._tell, args=(text,), name="stop").start()

    def _tell(self, text: str) -> None:
        with suppress(OSError):  # nobody reads any more
            self.say(text)
