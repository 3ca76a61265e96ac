"""Tells a tracker afterwards what it does not know of a run: rows of metrics.jsonl, and the files of its end."""

from pathlib import Path

from xlmrxl_train.config import Config
from xlmrxl_train.errors import RunError
from xlmrxl_train.track.console import Console
from xlmrxl_train.track.follower import short
from xlmrxl_train.track.trackers import Ledger, follow, pending, require
from xlmrxl_train.training.folder import RunFolder


def sync(config: Config, name: str) -> bool:
    """Tell tracker `name` what it does not know of the run in config.run.dir; return whether that worked.

    Args:
        config: Of the run; its tracker keys say where the tracker is.
        name: wandb, tensorboard, mlflow or trackio.

    Raises:
        ConfigError: The tracker cannot be used.
        RunError: The run is running, or has told nothing yet.
    """
    config.tracker.names = [name]
    require(config.tracker)
    folder, console = RunFolder(Path(config.run.dir)), Console()
    if not (folder.path / "metrics.jsonl").is_file():
        raise RunError(f"{folder.path} must have metrics.jsonl, found none. Give the folder of a run that has trained.")
    folder.acquire()  # a run that is running tells its trackers itself
    try:
        return _sync(config, name, folder.path, console)
    finally:
        folder.release()


def _sync(config: Config, name: str, folder: Path, console: Console) -> bool:
    ledger = Ledger(folder / "tracker.json")
    total = pending(name, config, folder, ledger)
    if not total:
        console.say(f"{name} knows all of {folder} already")
        return True
    told = 0
    with console.task(f"sync {name}", total) as advance:

        def note() -> None:
            nonlocal told
            told += 1
            advance()

        follower = follow(name, config, folder, ledger, step=None, say=lambda text: None, told=note)
        follower.close()  # metrics.jsonl gets no more lines: one try, to its end
        follower.start()
        try:
            while follower.thread.is_alive():
                follower.thread.join(0.2)
        except KeyboardInterrupt:
            follower.target.abandon()
            raise
    if follower.error is not None:
        follower.target.abandon()
        console.say(
            f"error: {name} took {told} of {total} rows of {folder}, then failed ({short(follower.error)}). "
            "The same command goes on from there."
        )
        return False
    console.say(f"{name}: {told} rows of {folder}; {follower.target.where}")
    return True
