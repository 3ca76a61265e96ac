"""The trackers themselves, behind accelerate's. Imported only where one of them is chosen."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from xlmrxl_train.config import Config, from_dict, to_dict
from xlmrxl_train.track.follower import Target
from xlmrxl_train.track.rows import Position
from xlmrxl_train.track.secrets import redact

# What makes accelerate believe that this is one of several processes.
LAUNCHERS = ("LOCAL_RANK", "WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def make(name: str, config: Config, folder: Path, *, identity: str, begin: int) -> Target:
    """Return a tracker for the run in `folder`.

    Args:
        name: One of tracker.names.
        config: Of the run.
        folder: The run's.
        identity: What the run is called by the tracker, today and after a resume.
        begin: The first step that the tracker will be told; below 0: it knows nothing yet.
    """
    _prepare_accelerate()
    uri = config.tracker.mlflow_uri  # before its password is gone
    values: dict[str, Any] = redact(to_dict(config))
    config = from_dict(values)
    with suppress(OSError, ValueError):
        environment = redact(json.loads((folder / "environment.json").read_text(encoding="utf-8")))
        values = {**values, "environment": environment}
    if name == "wandb":
        from xlmrxl_train.track.targets.wandb import WandB

        return WandB(config, folder, identity, values)
    if name == "mlflow":
        from xlmrxl_train.track.targets.mlflow import MLflow

        return MLflow(config, folder, identity, uri)
    if name == "trackio":
        from xlmrxl_train.track.targets.trackio import TrackIO

        return TrackIO(config, identity, values)
    from xlmrxl_train.track.targets.tensorboard import TensorBoard

    return TensorBoard(folder, begin, values)


def trackio_holds(config: Config, identity: str) -> Position | None:
    """Return how far trackio's store holds the run; None where it cannot be read."""
    from xlmrxl_train.track.targets.trackio import held

    _prepare_accelerate()
    return held(config, identity)


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
