"""The trackers of a run: wandb, TensorBoard, MLflow, trackio, or none. metrics.jsonl is written whatever is chosen.

tracker.json in the run's folder holds the id that the run has at its trackers, so that a resume goes on with the same
one, and how far each of them knows the run. A run that goes on from an earlier checkpoint computes steps again that a
tracker knows already. Most cannot take a step back, so they are not told these a second time; TensorBoard forgets them
(its purge_step) and is told anew.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from types import ModuleType

from xlmrxl_train.config import Config, TrackerConfig
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.track.final_files import AFTER_ALL_ROWS, final_files
from xlmrxl_train.track.follower import Follower, Target
from xlmrxl_train.track.rows import Position, Rows
from xlmrxl_train.track.secrets import HIDDEN, redact

NOTHING: Position = (-1, 0)  # lies before every row
LAST_WORDS = 10.0  # seconds that the trackers get at the end of a run, together
SILENT = 60.0  # seconds in one call after which a tracker is said to hang
NEEDS = {"mlflow": ("mlflow", "sqlalchemy", "alembic")}  # a tracker's packages; the others are called as they are
INSTALL = {
    "wandb": "wandb",
    **{name: f"xlmrxl_train[{name}]" for name in ("tensorboard", "mlflow", "trackio")},
}


def require(settings: TrackerConfig) -> None:
    """Make sure that the chosen trackers can be used; nothing is sent.

    Raises:
        ConfigError: A package is missing, or wandb has no key to send with.
    """
    faults = [
        f"tracker={name} needs the package {package}. Install it: pip install '{INSTALL[name]}'."
        for name in settings.names
        for package in NEEDS.get(name, (name,))
        if find_spec(package) is None
    ]
    if "mlflow" in settings.names and HIDDEN in (settings.mlflow_uri or ""):
        faults.append(
            f"tracker.mlflow_uri must have its secret where {HIDDEN} stands, got {settings.mlflow_uri}. "
            "A run's folder does not keep it: write the address again, or set MLFLOW_TRACKING_URI."
        )
    if "trackio" in settings.names and settings.trackio_dir and "trackio" in sys.modules:
        wanted, used = Path(settings.trackio_dir).expanduser().absolute(), sys.modules["trackio"].TRACKIO_DIR
        if wanted != used:
            faults.append(
                f"tracker.trackio_dir must be {used}, which trackio uses in this process already, got {wanted}. "
                "Begin a process for each folder."
            )
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


def place_of(name: str, settings: TrackerConfig) -> str:
    """Return what a tracker is called in tracker.json: its name, and where it is if that is not the usual place."""
    place: str | None = None
    if name == "wandb" and settings.mode == "online":
        place = "online"
    elif name == "mlflow":
        place = settings.mlflow_uri or os.environ.get("MLFLOW_TRACKING_URI")
    elif name == "trackio":
        variables = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_DIR")
        place = settings.trackio_dir or next((os.environ[key] for key in variables if os.environ.get(key)), None)
    return f"{name} {redact(place)}" if place else name


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


def follow(
    name: str,
    config: Config,
    folder: Path,
    ledger: Ledger,
    *,
    step: int | None,
    say: Callable[[str], None],
    told: Callable[[], None] = lambda: None,
) -> Follower:
    """Return what tells one tracker about the run in `folder`; it is not started yet.

    Args:
        name: One of tracker.names.
        config: Of the run.
        folder: Of the run.
        ledger: Of the run.
        step: As in `Trackers.open`; None: the run does not go on.
        say: As there.
        told: Called for whatever the tracker took.
    """
    place, known = place_of(name, config.tracker), _known(name, config, ledger)
    if name == "tensorboard" and step is not None and known != NOTHING:
        # From the first step that it is told again, or that it has not seen to its end.
        known = (min(known[0], step), -1)
    begin = known[0] + (step is None)
    target: Target = _targets().make(name, config, folder, identity=ledger.id, begin=begin)

    def note(position: Position) -> None:
        ledger.put(place, position)
        told()

    return Follower(target, folder / "metrics.jsonl", after=known, told=note, say=say)


def pending(name: str, config: Config, folder: Path, ledger: Ledger) -> int:
    """Return how many rows one tracker does not know of a run that does not go on; its last files count as one."""
    known, rows = _known(name, config, ledger), Rows()
    with (folder / "metrics.jsonl").open("rb") as lines:
        found = [row for line in lines if line.endswith(b"\n") for row in rows.add(json.loads(line))]
    files = final_files(folder)
    return sum(row.position > known for row in [*found, *rows.rest()]) + bool(files and files[1] != known)


def _known(name: str, config: Config, ledger: Ledger) -> Position:
    """Return how far a tracker knows the run; one that took rows and lost them, as far as it holds them."""
    known = ledger.known.get(place_of(name, config.tracker), NOTHING)
    if name == "trackio" and NOTHING < known < (AFTER_ALL_ROWS, 0):
        known = min(known, _targets().trackio_holds(config, ledger.id) or known)
    return known


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
                self.followers.append(follow(name, config, folder, ledger, step=step, say=say))
        except Exception as error:  # whatever a tracker's package does, the run begins
            say(f"trackers cannot be used ({type(error).__name__}: {error}); metrics.jsonl is written")
        for follower in self.followers:
            follower.start()
        if self.followers:
            threading.Thread(target=self._watch, name="trackers", daemon=True).start()
        return self

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
                    f"xlmrxl sync {follower.path.parent} --to {follower.target.name} tells it"
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
