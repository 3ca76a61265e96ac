"""A run's folder: who may write in it, and whether an earlier run in it goes on.

config.yaml, environment.json, metrics.jsonl, checkpoints/, model/, report.json, report.md, report.html
    stopped.json    while the run waits to go on after it was asked to stop
    failed.json     while it does after a failure that it could still tell of
    .lock           while a process works here
"""

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import yaml

from xlmrxl_train.config import FREE, Config, from_dict, leaves, to_dict
from xlmrxl_train.errors import ConfigError, RunError
from xlmrxl_train.track.json_lines import JsonLines
from xlmrxl_train.track.secrets import redact
from xlmrxl_train.training.checkpoint import Checkpointer


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

    @property
    def checkpoints(self) -> Path:
        """Return where the run's checkpoints lie."""
        return self.path / "checkpoints"

    def evaluation_of(self, dataset: str) -> Path:
        """Return where a later evaluation writes its report: "sample NLI" -> evaluation/sample_nli."""
        name = "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in dataset.lower())
        return self.path / "evaluation" / name

    def acquire(self) -> None:
        """Create the folder and keep other processes out of it until this one ends.

        Raises:
            RunError: It cannot be written, or another process uses it.
        """
        try:
            self.lock = _locked(self.path / ".lock")
            self.lock.truncate(0)
            self.lock.write(f"process {os.getpid()} on {socket.gethostname()}")
            self.lock.flush()
        except OSError as error:
            raise RunError(
                f"run.dir={self.path} must be a folder that can be written: {error.strerror} ({error.filename}). "
                "Choose another run.dir, or mend its permissions and free space."
            ) from None

    def release(self) -> None:
        """Let other processes in."""
        if self.lock is not None:
            with suppress(OSError):
                (self.path / ".lock").unlink()
            with suppress(OSError):  # what could not be written before cannot be now
                self.lock.close()
            self.lock = None
            with suppress(OSError):
                self.path.rmdir()  # if nothing was written there

    def clean(self) -> None:
        """Remove what a killed process left half written."""
        Checkpointer(self.checkpoints, keep=1).clean()
        for pattern in (
            ".*.partial",
            "*.partial",
            ".seen-*",
            "model/.*.tmp-*",
            "adapter/.*.tmp-*",
            "predictions/.*.partial",
        ):
            for left_over in self.path.glob(pattern):
                left_over.unlink(missing_ok=True)

    def write(self, name: str, text: str) -> None:
        """Write a small file, whole or not at all.

        Raises:
            RunError: It cannot be written.
        """
        path, temporary = self.path / name, self.path / f".{name}.partial"
        with writing(path):
            with temporary.open("w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)

    def write_stopped(self, reason: str, step: int | None) -> None:
        """Say in stopped.json that the run stopped on purpose, so that no launcher starts it again by itself.

        Args:
            step: None where training had not begun; then nothing is written if another process works here.
        """
        if step is None:
            with suppress(RunError):
                if self.lock is None:
                    self.acquire()
                self.write_stopped(reason, max(Checkpointer(self.checkpoints, keep=1).steps(), default=0))
            return
        self.write("stopped.json", json.dumps({"reason": reason, "step": step}) + "\n")

    def write_failed(self, error: BaseException, step: int | None) -> None:
        """Say in failed.json why a run that had begun here ended, for those who look at the folder later."""
        if self.lock is not None and self.is_run:
            text = " ".join(str(error).split())
            reason = redact(f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__)
            with suppress(RunError):  # where the disk is full, that is what the run itself says
                self.write("failed.json", json.dumps({"reason": reason, "step": step}) + "\n")

    def write_config(self, config: Config) -> None:
        """Write config.yaml."""
        self.write("config.yaml", yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True))

    def open_metrics(self, keep: int) -> JsonLines:
        """Open metrics.jsonl, keeping its first `keep` lines."""
        return _Metrics(self.path / "metrics.jsonl", keep=keep)

    def read_config(self) -> Config:
        """Return the configuration of the run here.

        Raises:
            RunError: The file is damaged.
            ConfigError: It has keys that this version does not know.
        """
        try:
            values = yaml.safe_load(self.config_file.read_text(encoding="utf-8"))
            if not isinstance(values, dict):
                raise ValueError(f"it must hold the run's keys, got {values!r:.40}")
            return from_dict(values)
        except ConfigError:
            raise
        except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
            raise RunError(
                f"{self.config_file} cannot be read: {error}. Restore it, or choose another run.name."
            ) from None

    @property
    def model(self) -> Path:
        """The folder of the trained model; with tuning.merge=false that of the adapter, which is read in its place."""
        whole, adapter = (self.path / name for name in ("model", "adapter"))
        return adapter if adapter.is_dir() and not whole.is_dir() else whole

    def check_has_model(self) -> None:
        """Make sure that a run here has come to its model.

        Raises:
            RunError: There is no run, or it has not.
        """
        if not self.is_run:
            raise RunError(f"{self.path} must be a run folder with config.yaml, found none. Give the folder of a run.")
        if not (self.model / "config.json").is_file():
            raise RunError(f"{self.path}/model must hold the trained model, found none. Let the run finish first.")

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

    def check_data(self, config: Config, now: dict[str, Any]) -> None:
        """Make sure that what a run reads is what it was started with, by what environment.json says.

        Args:
            now: {"data": {split: fingerprint}, "tokenizer": fingerprint}, with adapters {"weights": fingerprint} too.

        Raises:
            RunError: One of them differs, or the file is damaged.
        """
        path = self.path / "environment.json"
        if not path.exists():  # killed before it was written
            return
        try:
            then = json.loads(path.read_text(encoding="utf-8"))
            before = {"tokenizer": then["tokenizer"], "weights": then.get("weights"), **then["data"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{path} must say which data the run was started with, but cannot be read ({error}). "
                "Restore it; or remove it, if you are sure that data and tokenizer are the same."
            ) from None
        weights = {"weights": now["weights"]} if "weights" in now else {}
        for name, fingerprint in {"tokenizer": now["tokenizer"], **weights, **now["data"]}.items():
            if before.get(name) != fingerprint:
                named = {"tokenizer": "tokenizer", "weights": f"model in model.path={config.model.path}"}
                what = named.get(name, f"{name} split of {config.dataset.name}")
                raise RunError(
                    f"run.dir={self.path} was started with another {what}: fingerprint "
                    f"{before.get(name)!s:.12} there, {fingerprint:.12} now. "
                    "Go on with the same files and the same version, or choose another run.name."
                )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into a message.

    Raises:
        RunError: It names `path`.
    """
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{path} could not be written: {error.strerror or error}. The checkpoints are intact. "
            "Free space or mend its permissions, then start the same command again."
        ) from error


class _Metrics(JsonLines):
    """metrics.jsonl, whose faults name it."""

    def __init__(self, path: Path, *, keep: int) -> None:
        self.path = path
        with writing(path):
            super().__init__(path, keep=keep)
            with path.open("rb") as lines:  # fewer than `keep` where somebody removed them
                self.lines = sum(1 for _ in lines)

    def log(self, event: str, values: dict[str, Any]) -> None:
        """Append one event."""
        with writing(self.path):
            super().log(event, values)

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):  # what could not be written was said when it was logged
            super().close()


def _locked(path: Path) -> IO[str]:
    """Open a file and lock it; where the file system knows no locks it is opened all the same.

    Raises:
        RunError: Another process holds the lock.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)  # its holder may have removed it, empty, with its lock
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                file.seek(0)
                holder = file.read().strip() or "another process"
            raise RunError(
                f"run.dir={path.parent} is in use by {holder}. Wait for it, or choose another run.name."
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
                file.close()
                raise
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # its holder removed it just now: what we locked is no longer the lock


def _show(values: dict[str, Any], key: str) -> str:
    return repr(values[key]) if key in values else "absent"
