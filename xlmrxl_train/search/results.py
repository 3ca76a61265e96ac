"""What came of a study: trials.jsonl for programs, best.sh to run, a table for people."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from xlmrxl_train.evaluation.numbers import number
from xlmrxl_train.metrics import load as load_metric
from xlmrxl_train.track.secrets import redact


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One trial."""

    number: int
    state: str  # waiting | running | finished | pruned | failed | stopped
    why: str
    metric: float | None  # on the validation split: of the selected checkpoint, else the best look so far
    looks: list[float]  # the metric at each look at the validation split
    parameters: dict[str, str]  # key -> value, as a command line has it
    folder: str
    began: str | None
    ended: str | None


def sign_of(metric: str) -> int:
    """Return 1 where higher is better, else -1."""
    return 1 if load_metric(metric).HIGHER_IS_BETTER else -1


def best_of(rows: Sequence[Row], metric: str) -> Row | None:
    """Return the finished trial that scored best, of equals the first one."""
    scores = [(sign_of(metric) * row.metric, row) for row in rows if row.state == "finished" and row.metric is not None]
    return max(scores, key=lambda pair: pair[0])[1] if scores else None


def write_results(folder: Path, rows: Sequence[Row], metric: str, command: Sequence[str]) -> None:
    """Write trials.jsonl, and best.sh where a trial has finished.

    Args:
        folder: Of the study.
        rows: Its trials.
        metric: That was searched by.
        command: What runs the best trial's settings anew, and also looks at the test split.
    """
    _write(folder / "trials.jsonl", "".join(json.dumps(redact(asdict(row)), ensure_ascii=False) + "\n" for row in rows))
    if best := best_of(rows, metric):
        found = f"{metric} {number(metric, best.metric)} on the validation split"
        _write(folder / "best.sh", f'#!/bin/sh\n# {best.folder}: {found}\nexec {shlex.join(command)} "$@"\n')
        (folder / "best.sh").chmod(0o755)


def table_of(rows: Sequence[Row], metric: str) -> list[list[str]]:
    """Return the trials as cells, a head first."""
    keys = list(dict.fromkeys(key for row in rows for key in row.parameters))
    lines = [["trial", "state", metric, *keys, ""]]
    for row in rows:
        values = [row.parameters.get(key, "-") for key in keys]
        lines.append([str(row.number), row.state, number(metric, row.metric), *values, row.why])
    return lines


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
