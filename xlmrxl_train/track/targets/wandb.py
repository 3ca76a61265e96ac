"""Weights & Biases."""

import importlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from accelerate.tracking import WandBTracker

from xlmrxl_train.config import Config

UPLOAD = 8.0  # seconds that wandb may take to send what is left at the end; `wandb sync` sends the rest


class WandB:
    """One run at wandb, on its servers or below `<run>/wandb`, where each session leaves a folder of the same id."""

    name = "wandb"

    def __init__(self, config: Config, folder: Path, identity: str, values: dict[str, Any]) -> None:
        settings = config.tracker
        os.environ["WANDB_ERROR_REPORTING"] = "false"  # wandb reports its own crashes over the network, also offline
        wandb = importlib.import_module("wandb")
        self.identity = identity
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
            tags=[*settings.tags, f"seed-{config.seed}"],
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

    def keep(self, files: Sequence[Path]) -> None:
        """Add one artifact, whose files stay where they are until they are sent."""
        artifact = importlib.import_module("wandb").Artifact(f"run-{self.identity}", type="report")
        for file in files:
            artifact.add_file(str(file), policy="immutable", skip_cache=True)
        self.tracker.tracker.log_artifact(artifact)

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
