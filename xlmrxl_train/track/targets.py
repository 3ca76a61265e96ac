"""wandb and TensorBoard behind accelerate's trackers. Imported only where one of them is chosen."""

import importlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch
import yaml
from accelerate import PartialState
from accelerate.tracking import TensorBoardTracker, WandBTracker

from xlmrxl_train.config import Config, from_dict, to_dict
from xlmrxl_train.track.secrets import redact

UPLOAD = 8.0  # seconds that wandb may take to send what is left at the end; `wandb sync` sends the rest
# What makes accelerate believe that this is one of several processes.
LAUNCHERS = ("LOCAL_RANK", "WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def make(name: str, config: Config, folder: Path, *, identity: str, begin: int) -> "WandB | TensorBoard":
    """Return a tracker for the run in `folder`.

    Args:
        name: wandb or tensorboard.
        config: Of the run.
        folder: The run's.
        identity: What the run is called by the tracker, today and after a resume.
        begin: The first step that the tracker will be told; below 0: it knows nothing yet.
    """
    _prepare_accelerate()
    values: dict[str, Any] = redact(to_dict(config))
    config = from_dict(values)
    with suppress(OSError, ValueError):
        environment = redact(json.loads((folder / "environment.json").read_text(encoding="utf-8")))
        values = {**values, "environment": environment}
    return WandB(config, folder, identity, values) if name == "wandb" else TensorBoard(folder, begin, values)


class WandB:
    """One run at wandb, on its servers or below `<run>/wandb`, where each session leaves a folder of the same id."""

    name = "wandb"

    def __init__(self, config: Config, folder: Path, identity: str, values: dict[str, Any]) -> None:
        settings = config.tracker
        os.environ["WANDB_ERROR_REPORTING"] = "false"  # wandb reports its own crashes over the network, also offline
        wandb = importlib.import_module("wandb")
        self.where = f"offline; wandb sync {folder / 'wandb' / 'offline-run-*'} sends it"
        self.silence = wandb.Settings(silent=True)
        wanted = {  # earlier versions lack some
            "silent": True,
            "console": "off",
            "disable_git": True,
            "disable_code": True,
            "save_code": False,
            "x_disable_meta": True,  # the command line may hold secrets
            "x_disable_machine_info": True,  # asks an address of the cluster for it
            "finish_timeout": UPLOAD,
        }
        self.tracker = WandBTracker(
            settings.project,
            entity=settings.entity,
            id=identity,
            resume="allow",
            name=config.run.name,
            group=settings.group or config.run.recipe or None,
            tags=settings.tags,
            job_type="train",
            mode=settings.mode,
            dir=str(folder),
            # Not through store_init_configuration: that writes to whatever run the process began last.
            config=values,
            allow_val_change=True,
            reinit="create_new",
            settings=wandb.Settings(**{name: wanted[name] for name in wanted if name in wandb.Settings.model_fields}),
        )

    def start(self) -> None:
        """Begin, or go on with, the run; the step is a metric, since wandb's own count cannot go on from ours."""
        importlib.import_module("wandb").setup(settings=self.silence)
        self.tracker.start()
        run = self.tracker.tracker
        run.define_metric("step", hidden=True)
        run.define_metric("*", step_metric="step")
        self.where = run.url or self.where

    def log(self, step: int, values: dict[str, float]) -> None:
        """Add one row."""
        self.tracker.log({"step": step, **values})

    def finish(self) -> None:
        """Send what is left."""
        self.tracker.finish()

    def abandon(self) -> None:
        """End wandb's helper process: it would keep this one from ending while it waits for the network."""
        for process in psutil.Process().children():
            with suppress(psutil.Error):
                if process.name().startswith("wandb-core"):
                    process.kill()
        with suppress(AttributeError):  # take note of its end, where this version of wandb lets us
            importlib.import_module("wandb.sdk.wandb_setup").singleton()._connection._proc.join()
        with suppress(Exception):  # it complains that the helper is gone
            importlib.import_module("wandb").teardown()


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

    def finish(self) -> None:
        """Close the file."""
        self.tracker.finish()

    def abandon(self) -> None:
        """Nothing holds the process."""


def _prepare_accelerate() -> None:
    """Tell accelerate, whose trackers ask it, who this process is: rank 0, of its world or alone."""
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    # Alone under a launcher it would make a process group; without OMP_NUM_THREADS it would set the threads.
    hidden = {name: os.environ.pop(name) for name in LAUNCHERS if alone and name in os.environ}
    threads = torch.get_num_threads()
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = before or str(threads)
    try:
        PartialState(cpu=True)
    finally:
        os.environ.update(hidden)
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        torch.set_num_threads(threads)
