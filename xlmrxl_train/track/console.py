"""What a person sees: a live bar in a terminal, calm plain lines elsewhere; rank 0 only."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from xlmrxl_train.track.secrets import redact

LINE_EVERY = 10.0  # seconds between plain progress lines of one task

Advance = Callable[..., None]  # advance(note=""): one step done


class Console:
    """Speaks on standard error, so that standard output holds results alone."""

    def __init__(self, *, enabled: bool = True) -> None:
        self.enabled = enabled
        self.rich = RichConsole(file=sys.stderr, highlight=False, soft_wrap=True)
        self.live: Progress | None = None

    def say(self, text: str) -> None:
        """Print one line, without secrets."""
        if self.enabled:
            self.rich.print(redact(text), markup=False)

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Show progress of `total` steps, `done` of which an earlier run made; yields the function that advances it."""
        if not self.enabled:
            yield lambda note="": None
        elif self.rich.is_terminal:
            yield from self._bar(name, total, done)
        else:
            yield from self._lines(name, total, done)

    @contextmanager
    def count(self, name: str, total: int | None) -> Iterator[Advance]:
        """Show in a terminal how many of `total` are done; nothing elsewhere.

        Standard output is left alone: who pipes results into a file while a bar is shown gets them all there.
        """
        if not (self.enabled and self.rich.is_terminal):
            yield lambda note="": None
            return
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.rich, redirect_stdout=False, redirect_stderr=False) as live:
            bar = live.add_task(name, total=total)
            yield lambda note="": live.advance(bar)

    def _bar(self, name: str, total: int, done: int) -> Iterator[Advance]:
        outermost = self.live is None
        if self.live is None:
            self.live = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}", style="dim"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self.rich,
            )
            self.live.start()
        live = self.live
        bar = live.add_task(name, total=total, completed=done, note="")

        def advance(note: str = "") -> None:
            live.advance(bar)
            if note:
                live.update(bar, note=note)

        try:
            yield advance
        finally:
            if outermost:
                live.stop()
                self.live = None
            else:
                live.remove_task(bar)

    def _lines(self, name: str, total: int, done: int) -> Iterator[Advance]:
        started = last_line = time.monotonic()
        count = done

        def advance(note: str = "") -> None:
            nonlocal count, last_line
            count += 1
            now = time.monotonic()
            if now - last_line >= LINE_EVERY or count == total:
                last_line = now
                left = (now - started) / (count - done) * (total - count)
                parts = [f"{name} {count}/{total}", note, f"{_clock(now - started)}, {_clock(left)} left"]
                self.say("  ".join(part for part in parts if part))

        yield advance


def _clock(seconds: float) -> str:
    """Return 75.2 as "1:15"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
