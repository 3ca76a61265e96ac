"""What metrics.jsonl says of a run: curves, scores by step, events."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xlmrxl_train.errors import DataError

_SCORES = ("evaluate", "selection", "averages")  # events that hold scores


@dataclass(kw_only=True, slots=True)
class History:
    """A run over its steps."""

    train: list[dict[str, Any]] = field(default_factory=list)  # lines of training, by step
    languages: dict[int, dict[str, dict[str, Any]]] = field(default_factory=dict)  # step -> language -> its line
    averages: dict[int, dict[str, Any]] = field(default_factory=dict)  # step -> metric -> name -> value
    events: list[dict[str, Any]] = field(default_factory=list)  # whatever else happened
    guard: list[dict[str, Any]] = field(default_factory=list)  # what the guard saw
    seconds: float = 0.0  # that the optimizer steps took, also those that were undone; no evaluation, no checkpoint
    energies: list[float | None] = field(default_factory=list)  # watt-hours of the GPUs in each line's steps, likewise

    def count(self, line: dict[str, Any]) -> None:
        """Add a line of training."""
        if line.get("tokens_per_second") and line.get("tokens"):
            before = (self.train[-1].get("tokens") or 0) if self.train else 0
            self.seconds += (line["tokens"] - before) / line["tokens_per_second"]
        energy = line.get("energy_wh")
        self.energies.append(None if energy is None else float(energy))
        self.train.append(line)

    def undo(self, step: int) -> None:
        """Forget what came after a step to which the guard went back."""
        self.train = [line for line in self.train if line["step"] <= step]
        for scores in (self.languages, self.averages):
            for later in [number for number in scores if number > step]:
                del scores[later]

    @property
    def energy(self) -> float | None:
        """Return the watt-hours of the GPUs in these steps; None where not all of them were measured."""
        known = [each for each in self.energies if each is not None]
        return sum(known) if known and len(known) == len(self.energies) else None


def read_history(folder: Path) -> History:
    """Read the metrics of a run; empty where it has none. Of scores, those on the validation split.

    Raises:
        DataError: A line is damaged.
    """
    history, path = History(), folder / "metrics.jsonl"
    if not path.is_file():
        return history
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            line = json.loads(text)
            event, step = line["event"], int(line["step"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}:{number}: a line must be an event with its step, got {text[:60]!r} ({type(error).__name__}). "
                "Restore the file, or remove it to report without curves."
            ) from None
        if event == "train":
            history.count(line)
        elif event == "guard" and {"fault", "text"} <= set(line):
            history.guard.append(line)
            if "back_to" in line:
                history.undo(int(line["back_to"]))
        elif event not in _SCORES:
            history.events.append(line)
        elif line.get("split") == "validation":
            if event == "averages":
                history.averages[step] = line
            else:
                history.languages.setdefault(step, {})[str(line.get("language"))] = line
    return history
