"""A run's folder: who may write in it, and whether an earlier run in it goes on.

config.yaml, environment.json, metrics.jsonl, checkpoints/, model/, report.json, report.md
    stopped.json    while the run waits to go on after it was asked to stop
"""

import fcntl
import json
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import yaml

from xlmrxl_train.config import Config, from_dict, leaves, to_dict
from xlmrxl_train.errors import RunError
from xlmrxl_train.training.checkpoint import Checkpointer

# Keys that may differ between the sessions of one run: they change where and how fast it runs, not what it computes.
FREE = (
    "run.",
    "data.root",
    "data.cache",
    "strategy.",
    "tracker.",
    "tokenizer.path",  # its content is compared through environment.json
    "model.attn_implementation",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.max_hours",
    "train.max_skipped",
    "train.log_every",
    "train.recompute",
    "train.save_model",
    "train.tokens_per_micro_batch",
    "evaluate.tokens_per_batch",
    "evaluate.bootstrap",
)


class RunFolder:
    """The folder of one run, on rank 0."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock: IO[str] | None = None

    @property
    def config_file(self) -> Path:
        """Return where the resolved configuration lies; its presence makes the folder a run."""
        return self.path / "config.yaml"

    @property
    def is_run(self) -> bool:
        """Whether a run was started here."""
        return self.config_file.is_file()

    @property
    def is_finished(self) -> bool:
        """Whether the run here came to its end; the report is written last."""
        return (self.path / "report.json").is_file()

    def acquire(self) -> None:
        """Create the folder and keep other processes out of it until this one ends.

        Raises:
            RunError: It cannot be written, or another process uses it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock = (self.path / ".lock").open("a+", encoding="utf-8")
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            assert self.lock is not None
            self.lock.seek(0)
            holder = self.lock.read().strip() or "another process"
            raise RunError(
                f"run.dir={self.path} is in use by {holder}. Wait for it, or choose another run.name."
            ) from None
        except OSError as error:
            raise RunError(
                f"run.dir={self.path} cannot be written: {error.strerror}. Choose another run.dir."
            ) from None
        self.lock.truncate(0)
        self.lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        self.lock.flush()

    def release(self) -> None:
        """Let other processes in."""
        if self.lock is not None:
            with suppress(OSError):
                (self.path / ".lock").unlink()
            self.lock.close()
            self.lock = None

    def write_stopped(self, reason: str, step: int) -> None:
        """Say in stopped.json that the run stopped on purpose, so that no launcher starts it again by itself."""
        text = json.dumps({"reason": reason, "step": step})
        (self.path / "stopped.json").write_text(text + "\n", encoding="utf-8")

    def write_config(self, config: Config) -> None:
        """Write config.yaml, whole or not at all."""
        temporary = self.path / ".config.yaml.partial"
        temporary.write_text(yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True), encoding="utf-8")
        temporary.replace(self.config_file)

    def read_config(self) -> Config:
        """Return the configuration of the run here.

        Raises:
            RunError: The file is damaged.
            ConfigError: It has keys that this version does not know.
        """
        try:
            values = yaml.safe_load(self.config_file.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise RunError(
                f"{self.config_file} cannot be read: {error}. Restore it, or choose another run.name."
            ) from None
        return from_dict(values)

    def check_same(self, config: Config) -> None:
        """Make sure that `config` computes what the run here computes.

        Raises:
            RunError: It lists every key that differs.
        """
        before, now = dict(leaves(self.read_config())), dict(leaves(config))
        different = [
            f"  {key}: {_show(before, key)} there, {_show(now, key)} now"
            for key in sorted({*before, *now})
            if not key.startswith(FREE) and before.get(key) != now.get(key)
        ]
        if different:
            raise RunError(
                f"run.dir={self.path} holds a run of another configuration:\n"
                + "\n".join(different)
                + "\nGo on with the same settings, or choose another run.name."
            )


def open_folder(folder: RunFolder, config: Config, say: Callable[[str], None]) -> str:
    """Decide, on rank 0, where the run begins: "finished", a checkpoint's path, or "" for the start.

    Raises:
        RunError: The folder is in use, cannot be written, or holds a run that cannot go on.
    """
    resume = config.run.resume
    if resume == "never" and folder.is_run:
        raise RunError(
            f"run.resume=never, but run.dir={folder.path} holds a run already. Choose another run.name, or remove it."
        )
    if folder.is_run:
        folder.check_same(config)
        if folder.is_finished and resume == "auto":
            return "finished"
    folder.acquire()
    if not folder.is_run:
        folder.write_config(config)
    (folder.path / "stopped.json").unlink(missing_ok=True)
    if resume not in ("auto", "never"):
        return resume
    checkpoint, faults = Checkpointer(folder.path / "checkpoints", keep=1).latest()
    for fault in faults:
        say(f"damaged checkpoint passed over: {fault}")
    if checkpoint:
        say(f"going on from {checkpoint}")
    return str(checkpoint or "")


def _show(values: dict[str, Any], key: str) -> str:
    return repr(values[key]) if key in values else "absent"
