"""The trackers of a run: wandb, TensorBoard, or none. metrics.jsonl is written whatever is chosen.

tracker.json in the run's folder holds the id that the run has at its trackers, so that a resume goes on with the same
one, and how far each of them knows the run. A run that goes on from an earlier checkpoint computes steps again that a
tracker knows already. wandb cannot take a step back, so it is not told these a second time; TensorBoard forgets them
(its purge_step) and is told anew.
"""

import json
import os
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from types import ModuleType

from xlmrxl_train.config import Config, TrackerConfig
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.track.follower import Follower, Target
from xlmrxl_train.track.rows import Position

NOTHING: Position = (-1, 0)  # lies before every row
LAST_WORDS = 10.0  # seconds that the trackers get at the end of a run, together
SILENT = 60.0  # seconds in one call after which a tracker is said to hang
INSTALL = {"wandb": "wandb", "tensorboard": "xlmrxl_train[tensorboard]"}


def require(settings: TrackerConfig) -> None:
    """Make sure that the chosen trackers can be used; nothing is sent.

    Raises:
        ConfigError: A package is missing, or wandb has no key to send with.
    """
    faults = [
        f"tracker={name} needs the package {name}. Install it: pip install '{INSTALL[name]}'."
        for name in settings.names
        if find_spec(name) is None
    ]
    if faults:
        raise ConfigError(*faults)
    online = "wandb" in settings.names and settings.mode == "online"
    if online and os.environ.get("RANK", "0") == "0" and not _may_log_in():
        raise ConfigError(
            "tracker.mode=online needs a key for wandb, found none. "
            "Run `wandb login`, set WANDB_API_KEY, or use tracker.mode=offline and `wandb sync` later."
        )


def _may_log_in() -> bool:
    """Return whether there is a place where wandb looks for a key; whether it is valid, only its server knows."""
    if any(os.environ.get(name) for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")):
        return True
    home = Path(os.environ.get("HOME", "/"))
    settings = Path(os.environ.get("WANDB_CONFIG_DIR", home / ".config" / "wandb")) / "settings"
    places = (Path(os.environ.get("NETRC", home / ".netrc")), home / "_netrc", settings)
    return any(place.is_file() for place in places)


class Ledger:
    """tracker.json: the run's id, and how far each tracker knows the run."""

    def __init__(self, path: Path) -> None:
        """Read `path`, or begin it."""
        self.path = path
        self.lock = threading.Lock()
        self.id = token_hex(6)
        self.known: dict[str, Position] = {}
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            known = {name: (int(step), int(phase)) for name, (step, phase) in values["known"].items()}
            self.id, self.known = str(values["id"]), known
        except FileNotFoundError:
            self._write()
        except (ValueError, KeyError, TypeError, AttributeError):  # damaged: the trackers get a new run, all of it
            self._write()

    def put(self, name: str, position: Position) -> None:
        """Note that tracker `name` knows the run up to `position`."""
        with self.lock:
            self.known[name] = position
            self._write()

    def _write(self) -> None:
        temporary = self.path.with_name(f".{self.path.name}.partial")
        temporary.write_text(json.dumps({"id": self.id, "known": self.known}) + "\n", encoding="utf-8")
        temporary.replace(self.path)


class Trackers:
    """Those of one run, on rank 0."""

    def __init__(self, followers: list[Follower], say: Callable[[str], None]) -> None:
        self.followers = followers
        self.say = say
        self.closed = threading.Event()

    @classmethod
    def open(cls, config: Config, folder: Path, *, step: int, say: Callable[[str], None]) -> "Trackers":
        """Start those that the configuration names.

        Args:
            config: Of the run; it is sent without secrets.
            folder: The run's; metrics.jsonl and environment.json are there.
            step: The number of optimizer steps of the checkpoint that the run goes on from; 0: none.
            say: Says a line to a person.
        """
        settings = config.tracker
        names = [name for name in settings.names if not (name == "wandb" and settings.mode == "disabled")]
        self = cls([], say)
        if not names:
            return self
        try:
            ledger = Ledger(folder / "tracker.json")
            for name in names:
                self.followers.append(self._follower(name, config, folder, ledger, step))
        except Exception as error:  # whatever a tracker's package does, the run begins
            say(f"trackers cannot be used ({type(error).__name__}: {error}); metrics.jsonl is written")
        for follower in self.followers:
            follower.start()
        if self.followers:
            threading.Thread(target=self._watch, name="trackers", daemon=True).start()
        return self

    def _follower(self, name: str, config: Config, folder: Path, ledger: Ledger, step: int) -> Follower:
        known = ledger.known.get(name, NOTHING)
        if name == "tensorboard":  # from the first step that it is told again, or that it has not seen to its end
            known = (min(known[0], step), -1) if known != NOTHING else NOTHING
        target: Target = _targets().make(name, config, folder, identity=ledger.id, begin=known[0])
        return Follower(
            target,
            folder / "metrics.jsonl",
            after=known,
            told=lambda position: ledger.put(name, position),
            say=self.say,
        )

    def close(self) -> None:
        """Let the trackers finish, for at most LAST_WORDS seconds; metrics.jsonl is complete by now."""
        self.closed.set()
        end = time.monotonic() + LAST_WORDS
        for follower in self.followers:
            follower.close()
        for follower in self.followers:
            follower.thread.join(max(0.0, end - time.monotonic()))
        for follower in self.followers:
            hangs = follower.thread.is_alive()
            if hangs or follower.error is not None:
                follower.warned = True
                rest = threading.Thread(target=follower.target.abandon, daemon=True)
                rest.start()
                rest.join(LAST_WORDS / 2)
            if missing := follower.missing:
                why = "does not answer" if hangs else "failed"
                self.say(
                    f"tracker {follower.target.name} {why}: it was not told {missing} of the lines of metrics.jsonl; "
                    "it will be if the run goes on"
                )
            elif hangs:
                self.say(f"tracker {follower.target.name} does not answer; it was told everything")
            elif follower.error is not None:  # its package took the lines and died with them, or before it said so
                self.say(
                    f"tracker {follower.target.name} failed at the end of the run: it was told every line of "
                    "metrics.jsonl, and may have lost the last"
                )

    def _watch(self) -> None:
        """Warn, once, of a tracker that hangs."""
        while not self.closed.wait(SILENT / 4):
            for follower in self.followers:
                since = follower.busy_since
                if since is not None and time.monotonic() - since > SILENT:
                    follower.complain(f"has not answered for {SILENT:.0f} s")


def _targets() -> ModuleType:
    """Import what imports accelerate, which takes a second that a run without trackers does not spend."""
    from xlmrxl_train.track import targets

    return targets
