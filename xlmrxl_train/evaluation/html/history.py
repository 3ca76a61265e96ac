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

    @property
    def seconds(self) -> float:
        """Return how long the optimizer steps took, without evaluation and checkpoints."""
        total, before = 0.0, 0
        for line in self.train:
            if line.get("tokens_per_second") and line.get("tokens"):
                total += (line["tokens"] - before) / line["tokens_per_second"]
                before = line["tokens"]
        return total

    @property
    def energy(self) -> float | None:
        """Return the watt-hours of the GPUs in these steps; None where not all of them were measured."""
        measured = [line.get("energy_wh") for line in self.train]
        known = [float(each) for each in measured if each is not None]
        return sum(known) if known and len(known) == len(measured) else None


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
            history.train.append(line)
        elif event not in _SCORES:
            history.events.append(line)
        elif line.get("split") == "validation":
            if event == "averages":
                history.averages[step] = line
            else:
                history.languages.setdefault(step, {})[str(line.get("language"))] = line
    return history
