"""Lines of metrics.jsonl -> rows of numbers as trackers show them.

{"event": "train", "step": 20, "loss": 0.7, ...}                      train/loss
{"event": "evaluate", "split": "test", "language": "de", ...}         test/accuracy/de
{"event": "selection", "step": 20, "score": 0.7, ...}                 selection/score, higher is better
{"event": "averages", "split": "test", "accuracy": {"mean": ...}}     test/accuracy/mean
{"event": "skip", "step": 21, ...}                                    skip = 1
"""

from dataclasses import dataclass, field
from typing import Any

Position = tuple[int, int]  # optimizer step, and what of it: 0 skipped step or other, 1 train, 2 validation, 3 test
PHASES = {"train": 1, "validation": 2, "selection": 2, "test": 3}  # by the first part of a number's name

_NOT_SHOWN = ("event", "step", "total_steps", "split", "language", "n")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """Numbers that belong to one step."""

    position: Position
    values: dict[str, float]


@dataclass
class Rows:
    """Folds lines into rows; the lines of one evaluation, a line per language, become one."""

    position: Position = (0, 0)
    values: dict[str, float] = field(default_factory=dict)  # of an evaluation that is not complete

    def add(self, event: dict[str, Any]) -> list[Row]:
        """Take the next line; return the rows that are complete."""
        kind = event.get("event", "other")
        step = event.get("step", self.position[0])
        phase = PHASES.get(kind, 0)
        if kind in ("evaluate", "averages"):
            phase = PHASES.get(event.get("split", ""), PHASES["test"])
        complete = [] if (step, phase) == self.position else self.rest()
        self.position = (step, phase)
        self.values |= _numbers(kind, event)
        return complete if kind in ("evaluate", "selection") else [*complete, *self.rest()]

    def rest(self) -> list[Row]:
        """Return what is left."""
        values, self.values = self.values, {}
        return [Row(position=self.position, values=values)] if values else []


def _numbers(kind: str, event: dict[str, Any]) -> dict[str, float]:
    if kind == "skip":
        return {"skip": 1.0}
    shown = {name: value for name, value in event.items() if name not in _NOT_SHOWN}
    prefix, suffix = kind, ""
    if kind in ("evaluate", "averages"):
        prefix = str(event.get("split"))
        suffix = f"/{event['language']}" if "language" in event else ""
    numbers: dict[str, float] = {}
    for name, value in shown.items():
        parts = {f"/{part}": item for part, item in value.items()} if isinstance(value, dict) else {suffix: value}
        for part, item in parts.items():
            if isinstance(item, int | float):  # null stands for a number that JSON lacks
                numbers[f"{prefix}/{name}{part}"] = item
    return numbers
