"""What lies in run folders, read from outside: how each run stands, and what it takes on disk. No torch."""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlmrxl_train.errors import ConfigError, RunError
from xlmrxl_train.evaluation.comparison.reading import run_folders
from xlmrxl_train.metrics import load as load_metric

RUNNING, FINISHED, PREEMPTED, STOPPED, FAILED = "running", "finished", "preempted", "stopped", "failed"
_BY_PERSON = ("Ctrl-C", "train.max_hours", "pruned")  # reasons of a stop that somebody wanted to stay one
_SIGNS = ("metrics.jsonl", "report.json", "stopped.json", "failed.json", "environment.json", "config.yaml")


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run, as its folder shows it."""

    folder: Path
    state: str
    why: str  # it failed or stopped; who is running it
    step: int
    total_steps: int | None
    metric: str | None
    score: float | None  # the mean over languages: of the test split when finished, else the best validation so far
    changed: float  # when it was last written to, in seconds of the epoch
    size: int  # bytes
    checkpoints: int  # bytes of it
    has_model: bool


def look(words: Iterable[str]) -> list[Run]:
    """Return the runs in and below folders, those written to last first.

    Raises:
        RunError: A folder holds none.
    """
    faults: list[str] = []
    found = [folder for folder in run_folders(words, faults) if (folder / "config.yaml").is_file()]
    if faults:
        raise RunError("\n".join(faults))
    return sorted(map(look_at, found), key=lambda run: -run.changed)


def look_at(folder: Path) -> Run:
    """Return how one run stands; files that are damaged count as absent."""
    state, why = _state(folder)
    events = list(_events(folder / "metrics.jsonl"))
    last: dict[str, Any] = next((event for event in reversed(events) if event.get("event") == "train"), {})
    metric, score = _score([event for event in events if event.get("event") == "averages"], state)
    sizes = {part: _size(folder / part) for part in ("checkpoints", ".")}
    return Run(
        folder=folder,
        state=state,
        why=why,
        step=int(last.get("step") or 0),
        total_steps=last.get("total_steps"),
        metric=metric,
        score=score,
        changed=max(((folder / name).stat().st_mtime for name in _SIGNS if (folder / name).is_file()), default=0.0),
        size=sizes["."],
        checkpoints=sizes["checkpoints"],
        has_model=(folder / "model" / "config.json").is_file(),
    )


def free_checkpoints(run: Run) -> int:
    """Remove the checkpoints of a run that nobody works at; return how many bytes that freed.

    Raises:
        RunError: A process works in the folder by now, or it cannot be changed.
    """
    try:
        with _alone(run.folder):
            before = _size(run.folder / "checkpoints")
            shutil.rmtree(run.folder / "checkpoints", ignore_errors=False)
            return before
    except OSError as error:
        raise RunError(
            f"{run.folder}/checkpoints could not be removed: {error.strerror or error}. Mend its permissions."
        ) from None


def _state(folder: Path) -> tuple[str, str]:
    if (worker := holder(folder)) is not None:
        return RUNNING, worker
    if (folder / "report.json").is_file():
        return FINISHED, ""
    if (folder / "stopped.json").is_file():
        reason = str(_object(folder / "stopped.json").get("reason", "stopped.json cannot be read"))
        return (STOPPED if reason.startswith(_BY_PERSON) else PREEMPTED), reason
    if (folder / "failed.json").is_file():
        return FAILED, str(_object(folder / "failed.json").get("reason", "failed.json cannot be read"))
    return FAILED, "ended without a word: killed, out of memory, or its machine went down"


def holder(folder: Path) -> str | None:
    """Return who works in a folder; None: nobody."""
    path = folder / ".lock"
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            text = file.read(200).strip() or "another process"
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # given back at once, by closing
            except OSError:  # held; or the file system knows no locks, and a run that ends removes the file
                return text
    except OSError:
        pass
    return None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a run from starting in a folder meanwhile.

    Raises:
        RunError: One did.
    """
    path = folder / ".lock"
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{folder} is in use by now. Wait for it, then clean again.") from None
        except OSError:  # no locks here: what `holder` saw must do
            pass
        try:
            yield
        finally:
            with suppress(FileNotFoundError):
                path.unlink()


def _score(averages: list[dict[str, Any]], state: str) -> tuple[str | None, float | None]:
    """Return the first metric's name and mean, of the lines that say averages."""
    tested = [event for event in averages if event.get("split") == "test"]
    looked = tested[-1:] if tested and state == FINISHED else [e for e in averages if e.get("split") != "test"]
    metric = next((name for event in looked for name, value in event.items() if isinstance(value, dict)), "")
    means = [event[metric].get("mean") for event in looked if isinstance(event.get(metric), dict)]
    numbers = [mean for mean in means if isinstance(mean, int | float)]
    if not numbers:
        return metric or None, None
    try:
        return metric, (max if load_metric(metric).HIGHER_IS_BETTER else min)(numbers)
    except ConfigError:  # of another version
        return metric, numbers[-1]


def _events(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                with suppress(ValueError):  # the last one may be half written
                    event = json.loads(line)
                    if isinstance(event, dict):
                        yield event
    except OSError:
        return


def _object(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _size(folder: Path) -> int:
    """Return the bytes of the files below a folder; some may go while they are counted."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118  (many files)
    return total


def age(run: Run) -> str:
    """Return how long ago a run was last written to: "40 s", "3 h", "12 d"."""
    seconds = max(0.0, time.time() - run.changed)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
