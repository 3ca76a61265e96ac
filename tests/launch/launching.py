"""A run of a tiny model that goes on until it is stopped, and how the tests here start and watch runs."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
LAUNCH = REPOSITORY / "launch"
BIN = Path(sys.executable).parent

# Two languages, 60 examples, 2 steps per epoch; seconds of work and most of them at the end.
QUICK = [
    "recipe=demo",
    "model.path=null",
    "data.limit=60",
    "evaluate.languages=[en,de]",
    "evaluate.bootstrap=20",
    "evaluate.every=0",
    "train.epochs=2",
    "train.log_every=1",
    "strategy.device=cpu",
]
LONG = [*QUICK, "train.epochs=100000", "train.log_every=10", "train.checkpoint_every=50"]


def environment(**variables: str) -> dict[str, str]:
    """Return what people's shells hold: this interpreter first, this checkout importable; and `variables`."""
    ours = {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONWARNINGS": "ignore",
        "OMP_NUM_THREADS": "1",
    }
    return os.environ | ours | variables


def start(*command: object, log: Path, **variables: str) -> subprocess.Popen[bytes]:
    """Start a command in the checkout; all that it says goes to `log`."""
    with log.open("wb") as out:
        return subprocess.Popen(
            [str(word) for word in command], cwd=REPOSITORY, env=environment(**variables), stdout=out, stderr=out
        )


def run(*command: object, log: Path, seconds: float = 300, **variables: str) -> tuple[int, str]:
    """Run a command; return its exit code and what it said."""
    code = start(*command, log=log, **variables).wait(timeout=seconds)
    return code, log.read_text(encoding="utf-8", errors="replace")


def wait_until(holds: Callable[[], object], what: str, seconds: float = 120) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"waited {seconds} seconds in vain: {what}"
        time.sleep(0.1)


def steps(folder: Path) -> list[int]:
    """Return the steps that a run has logged."""
    try:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    events = [json.loads(line) for line in lines if line.endswith("}")]
    return [event["step"] for event in events if event["event"] == "train"]


def wait_for_steps(folder: Path, more_than: int = 0) -> int:
    """Wait until a run has trained some steps beyond those it had; return the last one logged."""
    wait_until(lambda: max(steps(folder), default=0) > more_than + 20, f"steps of {folder}")
    return max(steps(folder))


def stopped(folder: Path) -> dict:
    """Return what stopped.json says."""
    return json.loads((folder / "stopped.json").read_text(encoding="utf-8"))
