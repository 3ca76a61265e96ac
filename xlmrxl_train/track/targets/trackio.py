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


class TrackIO:
    """One run in trackio's local store, or wherever its own variables send it ($TRACKIO_SERVER_URL and the like)."""

    name = "trackio"

    def __init__(self, config: Config, identity: str, values: dict[str, Any]) -> None:
        settings = config.tracker
        if settings.trackio_dir:
            os.environ["TRACKIO_DIR"] = str(Path(settings.trackio_dir).expanduser().absolute())
        importlib.import_module("trackio")  # here, since imports in two threads can meet
        self.artifact = f"run-{identity}"
        self.where = f'trackio show --project "{settings.project}"'
        self.tracker = TrackioTracker(
            settings.project,
            name=f"{config.run.name} {identity}",  # by its name a run is found again
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
