"""What a terminal shows below the lines: bars, the curve of the loss, speed, the last scores, and what is done now.

It needs no colour, 40 columns and some seven lines; colours are of the 16 that every terminal has.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import mean
from typing import Any

from rich.console import Console, ConsoleOptions
from rich.text import Text

from xlmrxl_train.progress import progress

WIDEST = 100  # columns that are used, in however wide a window
SILENT = 5.0  # seconds without a move after which their number is shown
SCORE_LINES = 3
_BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass(kw_only=True)
class Bar:
    """How far one task is."""

    name: str
    total: int | None  # None: not known
    count: int = 0
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.before = self.count  # what an earlier run did

    @property
    def times(self) -> tuple[str, str]:
        """Return how long it took, and how long the rest will: nothing where that is not known yet."""
        elapsed, done = time.monotonic() - self.started, self.count - self.before
        left = "" if self.total is None or not done else clock(elapsed / done * (self.total - self.count))
        return clock(elapsed), left

    def line(self, width: int, *, ascii_only: bool) -> Text:
        """Return the bar in at most `width` columns; what has no room is left out."""
        elapsed, left = self.times
        count = f"{self.count:,}" if self.total is None else f"{self.count:,}/{self.total:,}"
        rest = f"{left} left" if left else ""
        for parts in ((count, elapsed, rest), (count, rest), (count,)):
            words = "  ".join(part for part in parts if part)
            room = min(40, width - len(self.name) - len(words) - 4)
            if room >= 8:
                break
        line = Text.assemble((self.name, "bold"))
        if self.total and room >= 8:
            full = room * min(self.count, self.total) // self.total
            done, todo = ("#", "-") if ascii_only else ("━", "─")
            line.append("  ").append(done * full, "cyan").append(todo * (room - full))
        line.append(f"  {words}")
        line.truncate(width)
        return line


class View:
    """All of it. A thread draws it while others change it; each change is one assignment or append."""

    def __init__(self) -> None:
        self.bars: list[Bar] = []  # the outermost first
        self.losses: list[float] = []
        self.facts: list[Text] = []
        self.averages: list[Text] = []
        self.scores: list[Text] = []

    def take(self, values: Mapping[str, Any]) -> None:
        """Take the numbers of a line of training in metrics.jsonl."""
        if math.isfinite(values["loss"]):
            self.losses.append(values["loss"])
        facts = [
            f"lr {values['lr']:.2e}",
            f"gradient {values['grad_norm']:.3g}",
            f"epoch {values['epoch']:.2f}",
            f"{values['tokens_per_second']:,.0f} tokens/s",
        ]
        if "matrix_share" in values:
            facts.append(f"{values['matrix_share']:.0%} of the matrix peak")
        if "gpu_memory_gb" in values:
            facts.append(f"GPU {values['gpu_memory_gb']:,.1f} GB")
        facts.append(f"memory {values['memory_gb']:,.1f} GB")
        if values["input_wait"] >= 0.01:
            facts.append(f"{values['input_wait']:.0%} waiting for input")
        bad = [f"{name} {values[name]}" for name in ("skipped", "unchanged") if values[name]]
        self.facts = [*map(Text, facts), *(Text(text, "yellow") for text in bad)]

    def rate(self, title: str, averages: Sequence[tuple[str, str]], scores: Sequence[tuple[str, str]]) -> None:
        """Take scores: what they are of, and name and number of each average and language, the best first."""
        self.averages = [Text(title), *map(_pair, averages)]
        self.scores = [_pair(each) for each in scores]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """Yield its lines."""
        width = min(WIDEST, options.max_width - 1)  # a full line makes some terminals begin another
        for line in self.lines(width, ascii_only=options.ascii_only):
            line.no_wrap, line.overflow = True, "crop"
            yield line

    def lines(self, width: int, *, ascii_only: bool = False) -> Iterator[Text]:
        """Yield lines of at most `width` columns."""
        for bar in list(self.bars):
            yield bar.line(width, ascii_only=ascii_only)
        if losses := list(self.losses):
            line = Text.assemble("loss ", (f"{losses[-1]:.4f}", "bold"))
            if not ascii_only:
                line.append("  ").append(curve(losses, min(40, width - len(line) - 2)), "cyan")
            yield line
        yield from flow(self.facts, width)
        yield from flow(self.averages, width)
        yield from flow(self.scores, width, most=SCORE_LINES)
        yield _now(width)


def curve(values: Sequence[float], width: int) -> str:
    """Return a curve of at most `width` letters, each the mean of as many values; nothing where there is no room."""
    count = min(width, len(values))
    if count < 1:
        return ""
    ends = [len(values) * place // count for place in range(count + 1)]
    means = [mean(values[start:end]) for start, end in pairwise(ends)]
    low, high = min(means), max(means)
    return "".join(_BLOCKS[round(7 * (value - low) / (high - low or 1))] for value in means)


def flow(items: Sequence[Text], width: int, most: int | None = None) -> list[Text]:
    """Return items side by side in lines; of too many for `most` lines, those in the middle are counted only."""
    lines = _filled(items, width)
    kept = len(items)
    while most is not None and len(lines) > most and kept > 1:
        kept -= 1
        first = (kept + 1) // 2
        left_out = Text(f"... {len(items) - kept} more ...", "dim")
        lines = _filled([*items[:first], left_out, *items[len(items) - kept + first :]], width)
    return lines


def _filled(items: Sequence[Text], width: int) -> list[Text]:
    lines: list[Text] = []
    for item in items:
        if lines and lines[-1].cell_len + 2 + item.cell_len <= width:
            lines[-1] = Text.assemble(lines[-1], "  ", item)
        else:
            lines.append(item.copy())
    return lines


def _pair(pair: tuple[str, str]) -> Text:
    return Text.assemble(f"{pair[0]} ", (pair[1], "bold"))


def _now(width: int) -> Text:
    """Return what is done now, and for how long if it does not move."""
    idle = time.monotonic() - progress.last_move
    text = progress.phase + (f", {clock(idle)}" if idle >= SILENT else "")
    line = Text(text, "dim")
    line.truncate(width)
    return line


def clock(seconds: float) -> str:
    """Return 75.2 as "1:15"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
