"""TensorBoard."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from accelerate.tracking import TensorBoardTracker


class TensorBoard:
    """Event files below `<run>/tensorboard`, one per session."""

    name = "tensorboard"

    def __init__(self, folder: Path, begin: int, values: dict[str, Any]) -> None:
        importlib.import_module("torch.utils.tensorboard")  # here, since imports in two threads can meet
        logs = folder / "tensorboard"
        self.where = f"tensorboard --logdir {logs}"
        self.tracker = TensorBoardTracker("", str(logs), purge_step=max(begin, 0))
        self.configuration = "" if begin > 0 else yaml.safe_dump(values, sort_keys=False, allow_unicode=True)

    def start(self) -> None:
        """Open an event file; steps from `begin` on in earlier ones are forgotten."""
        self.tracker.start()
        if self.configuration:  # not through store_init_configuration: that makes a second run of the dashboard
            self.tracker.log({"configuration": "".join(f"    {line}\n" for line in self.configuration.splitlines())})

    def log(self, step: int, values: dict[str, float]) -> None:
        """Add one point to each curve."""
        self.tracker.log(values, step=step)

    def keep(self, files: Sequence[Path]) -> None:
        """Show the pages; TensorBoard has no place for files."""
        self.tracker.log({file.name: file.read_text(encoding="utf-8") for file in files if file.suffix == ".md"})

    def finish(self) -> None:
        """Close the file."""
        self.tracker.finish()

    def abandon(self) -> None:
        """Nothing holds the process."""
