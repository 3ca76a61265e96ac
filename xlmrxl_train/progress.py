"""Where this process is, and whether it moves; parallel/watchdog.py looks at it from a thread of its own.

A process is in one place, so this module has one `progress`, as logging has one root. Work that may take minutes says
what it is with `doing`, or calls `move` for each part of it; either costs a few microseconds. The place is the main
thread's; what other threads do, such as writing a checkpoint, counts as moves.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Progress:
    """What the main thread does, and how often it has moved on."""

    def __init__(self) -> None:
        self.moves = 0
        self.last_move = time.monotonic()
        self.collectives = 0
        """How many were entered: the rank with the fewest is the one that the others wait for."""
        self.ends_itself = 0
        """How deep in work whose moves are not seen, but which others make sure to end."""
        self._phases: list[str] = []  # the outermost first
        self._entered: tuple[str, float] | None = None
        self._left: tuple[str, float] | None = None

    def move(self) -> None:
        """Say that some part of the work is done."""
        self.moves += 1
        self.last_move = time.monotonic()

    @contextmanager
    def doing(self, phase: str) -> Iterator[None]:
        """Say what is done inside, as a part of what is done already."""
        phases = self._phases if _in_main_thread() else []
        phases.append(phase)
        self.move()
        try:
            yield
        finally:
            phases.pop()
            self.move()

    @contextmanager
    def trusting(self, phase: str) -> Iterator[None]:
        """Say what is done inside, by something that ends by itself and does not say how far it is."""
        self.ends_itself += 1
        try:
            with self.doing(phase):
                yield
        finally:
            self.ends_itself -= 1

    @contextmanager
    def collective(self, name: str) -> Iterator[None]:
        """Say that a collective operation is entered and left."""
        seen = _in_main_thread()
        self.move()
        if seen:
            self.collectives += 1
            self._entered = (name, self.last_move)
        yield
        self.move()
        if seen:
            self._left = (name, self.last_move)

    @property
    def phase(self) -> str:
        """Return the outermost work that is under way; nothing between two parts."""
        return next(iter(self._phases), "")

    def describe(self) -> str:
        """Return one line: what is done, since when; which collective was entered last, and whether it was left."""
        now = time.monotonic()
        phases = ", ".join(self._phases) or "between two parts of its work"
        line = f"{phases}, for {now - self.last_move:.1f} s; "
        if self._entered is None:
            return f"{line}no collective yet"
        (name, entered), left = self._entered, self._left
        line += f"collective {self.collectives} ({name}) entered {now - entered:.1f} s ago, "
        if left is None or left[1] < entered:
            return f"{line}not left"
        return f"{line}left {now - left[1]:.1f} s ago"


def _in_main_thread() -> bool:
    return threading.get_ident() == threading.main_thread().ident


progress = Progress()
