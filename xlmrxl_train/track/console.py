"""What a person sees: a live view in a terminal, calm plain lines elsewhere; rank 0 only."""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console as RichConsole
from rich.live import Live

from xlmrxl_train.track.secrets import redact
from xlmrxl_train.track.view import Bar, View

LINE_EVERY = 10.0  # seconds between plain progress lines of one task
REDRAWS = 2.0  # of the live view per second

Advance = Callable[..., None]  # advance(note=""): one step done


class Console:
    """Speaks on standard error, so that standard output holds results alone."""

    def __init__(self, *, enabled: bool = True) -> None:
        self.enabled = enabled
        self.rich = RichConsole(file=sys.stderr, highlight=False, soft_wrap=True)
        self.view = View()
        self.shown = False

    @property
    def is_live(self) -> bool:
        """Whether this is a terminal that can be drawn on."""
        return self.enabled and self.rich.is_interactive and self.rich.file.isatty()

    def say(self, text: str) -> None:
        """Print one line, without secrets; it stays above the view."""
        if self.enabled:
            self.rich.print(redact(text), markup=False)

    def show_training(self, values: Mapping[str, Any]) -> None:
        """Show the numbers of a line of training in metrics.jsonl."""
        self.view.take(values)

    def show_scores(
        self, title: str, *, averages: Sequence[tuple[str, str]], scores: Sequence[tuple[str, str]]
    ) -> None:
        """Show scores until others come: what they are of, and name and number of each, the best first."""
        self.view.rate(title, averages, scores)

    @contextmanager
    def live(self) -> Iterator[None]:
        """Keep the view in a terminal until the end, and leave nothing of it; elsewhere nothing is shown.

        What others write to standard error, or to standard output where that is the terminal too, appears above it.
        """
        if self.shown or not self.is_live:
            yield
            return
        streams = [sys.stderr, *([sys.stdout] if sys.stdout.isatty() else [])]
        handlers = [(handler, handler.stream) for handler in _handlers() if handler.stream in streams]
        shown = Live(
            console=self.rich,
            get_renderable=lambda: self.view if self.shown else "",  # at last nothing, lest some of it scroll away
            refresh_per_second=REDRAWS,
            transient=True,
            redirect_stdout=sys.stdout in streams,
        )
        self.shown = True
        try:
            shown.start()
            self.rich.show_cursor(True)  # a process that is killed cannot show it again
            for handler, stream in handlers:
                handler.setStream(sys.stderr if stream is streams[0] else sys.stdout)
            yield
        finally:
            self.shown = False
            shown.stop()
            for handler, stream in handlers:
                handler.setStream(stream)

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Show progress of `total` steps, `done` of which an earlier run made; yields the function that advances it."""
        bar = Bar(name=name, total=total, count=done)
        if self.is_live:
            with self._bar(bar) as advance:
                yield advance
        elif self.enabled:
            yield self._lines(bar)
        else:
            yield lambda note="": None

    @contextmanager
    def count(self, name: str, total: int | None) -> Iterator[Advance]:
        """Show in a terminal how many of `total` are done; nothing elsewhere."""
        if not self.is_live:
            yield lambda note="": None
            return
        with self._bar(Bar(name=name, total=total)) as advance:
            yield advance

    @contextmanager
    def _bar(self, bar: Bar) -> Iterator[Advance]:
        def advance(note: str = "") -> None:
            bar.count += 1

        alone = not self.shown
        with self.live():
            self.view.bars.append(bar)
            try:
                yield advance
            finally:
                self.view.bars.remove(bar)
        if alone:  # no command shows it; how many there were, and how long they took, stays
            self.rich.print(bar.line(self.rich.width - 1, ascii_only=False))

    def _lines(self, bar: Bar) -> Advance:
        last_line = time.monotonic()

        def advance(note: str = "") -> None:
            nonlocal last_line
            bar.count += 1
            now = time.monotonic()
            if now - last_line >= LINE_EVERY or bar.count == bar.total:
                last_line = now
                elapsed, left = bar.times
                parts = [f"{bar.name} {bar.count}/{bar.total}", note, f"{elapsed}, {left} left"]
                self.say("  ".join(part for part in parts if part))

        return advance


def _handlers() -> Iterator["logging.StreamHandler[Any]"]:
    """Yield what other packages log with; it holds the stream that was there when it was made."""
    for logger in (logging.root, *logging.root.manager.loggerDict.values()):
        for handler in getattr(logger, "handlers", ()):
            if isinstance(handler, logging.StreamHandler) and "stream" in vars(handler):  # some look it up each time
                yield handler
