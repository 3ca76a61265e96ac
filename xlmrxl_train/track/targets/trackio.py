"""trackio."""

import importlib
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from accelerate.tracking import TrackioTracker

from xlmrxl_train.config import Config
from xlmrxl_train.track.rows import PHASES, Position

ELSEWHERE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")  # variables that send runs to a server


def held(config: Config, identity: str) -> Position | None:
    """Return how far trackio's store on this machine holds a run; None where the run is at a server.

    trackio writes what it took within half a second, so that a process which is killed loses the last rows.
    """
    if any(os.environ.get(name) for name in ELSEWHERE):
        return None
    _import(config)
    from trackio.sqlite_storage import SQLiteStorage

    rows = SQLiteStorage.get_logs(config.tracker.project, _run_name(config, identity))
    found = [(int(row["step"]), max(PHASES.get(key.partition("/")[0], 0) for key in row)) for row in rows]
    return max(found, default=(-1, 0))


def _import(config: Config) -> None:
    if config.tracker.trackio_dir:
        os.environ["TRACKIO_DIR"] = str(Path(config.tracker.trackio_dir).expanduser().absolute())
    importlib.import_module("trackio")  # in the main thread, since imports in two threads can meet


def _run_name(config: Config, identity: str) -> str:
    """Return what a run is called: by its name it is found again."""
    return f"{config.run.name} {identity}"


class TrackIO:
    """One run in trackio's local store, or wherever its own variables send it ($TRACKIO_SERVER_URL and the like)."""

    name = "trackio"

    def __init__(self, config: Config, identity: str, values: dict[str, Any]) -> None:
        settings = config.tracker
        _import(config)
        self.artifact = f"run-{identity}"
        self.where = f'trackio show --project "{settings.project}"'
        self.tracker = TrackioTracker(
            settings.project,
            name=_run_name(config, identity),
            group=settings.group or config.run.recipe or None,
            config={**values, "tags": [*settings.tags, f"seed-{config.seed}"]},
            resume="allow",
            embed=False,
            auto_log_cpu=False,  # metrics.jsonl has what we want to know
            auto_log_gpu=False,
        )

    def start(self) -> None:
        """Begin the run, or go on with it."""
        with _quiet():
            self.tracker.start()

    def log(self, step: int, values: dict[str, float]) -> None:
        """Add one row; it is written within half a second."""
        self.tracker.log(values, step=step)

    def keep(self, files: Sequence[Path]) -> None:
        """Add one artifact."""
        artifact = importlib.import_module("trackio").Artifact(self.artifact, type="report")
        for file in files:
            artifact.add_file(str(file))
        with _quiet():
            self.tracker.tracker.log_artifact(artifact)

    def finish(self) -> None:
        """Write what is left."""
        with _quiet():
            self.tracker.finish()

    def abandon(self) -> None:
        """Nothing holds the process."""


class _Others:
    """Standard output for all threads but one."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.silent = threading.get_ident()

    def write(self, text: str) -> int:
        return len(text) if threading.get_ident() == self.silent else self.stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what trackio prints off standard output, where other threads may print results."""
    with redirect_stdout(_Others(sys.stdout)):
        yield
