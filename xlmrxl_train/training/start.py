"""Where a run begins: anew, or from a checkpoint of its own or of another run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlmrxl_train.config import Config, from_dict, to_dict
from xlmrxl_train.errors import CheckpointError, RunError
from xlmrxl_train.track.secrets import redact
from xlmrxl_train.training.checkpoint import Checkpointer, verify
from xlmrxl_train.training.folder import RunFolder, writing
from xlmrxl_train.training.state import TrainState


@dataclass(kw_only=True, slots=True)
class Start:
    """Where a run begins."""

    checkpoint: Path | None = None  # None: with new weights
    own: bool = True  # whether the checkpoint is of this run
    keep_best: bool = True  # whether the checkpoint that was the best one is there too

    def apply(self, state: TrainState) -> None:
        """Take from the counters of the checkpoint what is about files that are not there."""
        if not self.own:
            state.metrics_lines = 0
        if not (self.own and self.keep_best):
            state.best_step = state.best_score = state.patience_score = None
            state.patience_used = 0
            state.validated_step = 0  # scored again where that is due, so that this step can be selected


def enter_folder(folder: RunFolder, config: Config, fingerprints: dict[str, Any]) -> bool:
    """Make sure, on rank 0, that the run can begin or go on here, and lock the folder, whose runs are not changed yet.

    Args:
        fingerprints: Of data and tokenizer, as environment.json holds them.

    Returns:
        False where the run is finished already, and nothing was locked.

    Raises:
        RunError: The folder is in use, cannot be written, or holds a run that cannot go on.
        CheckpointError: run.resume is no whole checkpoint.
    """
    config = _as_written(config)
    resume, going_on = config.run.resume, folder.is_run
    if resume == "never" and going_on:
        raise RunError(
            f"run.resume=never, but run.dir={folder.path} holds a run already. Choose another run.name, or remove it."
        )
    if going_on:
        folder.check_same(config)
        folder.check_data(config, fingerprints)
        if folder.is_finished:
            return False
    if chosen := _chosen(config):
        _verify_chosen(chosen)
    folder.acquire()
    return True


def find_start(folder: RunFolder, config: Config, say: Callable[[str], None]) -> Start:
    """Decide, on rank 0 in a folder that was entered, where the run begins, and remove what would be in its way.

    Raises:
        RunError: The folder cannot be written.
        CheckpointError: The run has checkpoints and none of them is whole.
    """
    config, going_on = _as_written(config), folder.is_run
    with writing(folder.path):
        folder.clean()
        for marker in ("stopped.json", "failed.json"):
            (folder.path / marker).unlink(missing_ok=True)
    if not going_on:
        folder.write_config(config)
    checkpoints = Checkpointer(folder.checkpoints, keep=config.train.keep_checkpoints)
    if chosen := _chosen(config):
        own = {checkpoints.path(step).resolve(): step for step in checkpoints.steps()}
        if chosen.resolve() in own:
            return _go_back(checkpoints, own[chosen.resolve()], say)
        if not own:
            say(f"beginning from {chosen}")
            return Start(checkpoint=chosen, own=False)
    return Start(checkpoint=_latest(folder, checkpoints, say) if going_on else None)


def _as_written(config: Config) -> Config:
    """Return the configuration as config.yaml holds it."""
    return from_dict(redact(to_dict(config)))


def _chosen(config: Config) -> Path | None:
    resume = config.run.resume
    return None if resume in ("auto", "never") else Path(resume).expanduser()


def _go_back(checkpoints: Checkpointer, step: int, say: Callable[[str], None]) -> Start:
    """Begin from a checkpoint of this run that need not be the last one."""
    if later := checkpoints.remove_after(step):
        say(f"going back to step {step}; later checkpoints are removed: {', '.join(map(str, later))}")
    say(f"going on from {checkpoints.path(step)}")
    try:
        checkpoints.verify_best(step)
    except CheckpointError as error:
        say(f"selection starts anew: {error}")
        return Start(checkpoint=checkpoints.path(step), keep_best=False)
    return Start(checkpoint=checkpoints.path(step))


def _verify_chosen(path: Path) -> None:
    try:
        verify(path)
    except CheckpointError as error:
        raise CheckpointError(
            f"run.resume must be auto, never or the folder of a checkpoint (.../checkpoints/step-00000100), "
            f"got {path}: {error} Set run.resume=auto, or name a whole checkpoint."
        ) from None


def _latest(folder: RunFolder, checkpoints: Checkpointer, say: Callable[[str], None]) -> Path | None:
    """Return the last good checkpoint of a run that goes on, and say what is wrong with later ones."""
    checkpoint, faults = checkpoints.latest()
    if faults and not checkpoint:
        raise CheckpointError(
            f"run.dir={folder.path} has no checkpoint to go on from:\n"
            + "\n".join(f"  {fault}" for fault in faults)
            + "\nRestore one from a copy, or start over with another run.name."
        )
    if not faults:
        checkpoints.prune()  # a process that was killed may have left this undone
    for fault in faults:
        say(f"damaged checkpoint passed over: {fault}")
    say(f"going on from {checkpoint}" if checkpoint else f"{folder.path} has no checkpoint yet; starting from step 0")
    return checkpoint
