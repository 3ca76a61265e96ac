"""A run of seconds that logs every loss, started as people start it, and how two runs are compared."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from xlmrxl_train import load_config, train
from xlmrxl_train.config import Config
from xlmrxl_train.evaluation.report import Report
from xlmrxl_train.training.speed import MEASURED

FIXED = Path(__file__).with_name("fixed")
CONF = FIXED / "conf"
TOKENIZER = Path(__file__).parents[2] / "xlmrxl_train" / "data" / "sample"

# Two languages, 60 examples, 16 steps of a tiny model; validated after 7, 14 and 16, saved after 3, 6, 7, 9, ...;
# the checkpoint of step 7 is the best one (fixed/conf/dataset/fixed.yaml says why).
KEYS = [
    "recipe=demo",
    "dataset=fixed",
    "data.source=files",
    f"data.root={FIXED}",
    f"tokenizer.path={TOKENIZER}",
    "model.path=null",
    "model.hidden_dropout_prob=0.1",
    "model.attention_probs_dropout_prob=0.1",
    "optimizer.lr=1e-3",
    "train.languages=[en]",
    "train.precision=fp32",
    "evaluate.select=best",
    "evaluate.bootstrap=20",
    "evaluate.every=7",
    "train.epochs=8",
    "train.log_every=1",
    "train.checkpoint_every=3",
    "train.keep_checkpoints=3",
    "train.batch_size=32",
]
WORDS = ["--config-dir", str(CONF), *KEYS]


def config_of(folder: Path, *overrides: str) -> Config:
    return load_config([*KEYS, f"run.dir={folder}", *overrides], config_dir=CONF)


def run(folder: Path, *overrides: str) -> Report | None:
    """Train in this process."""
    return train(config_of(folder, *overrides))


def command(folder: Path, *overrides: str) -> list[str]:
    return [sys.executable, "-m", "xlmrxl_train", *WORDS, f"run.dir={folder}", *overrides]


def start(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    """Train in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # sums depend on it in the last bit
    return subprocess.Popen(
        command(folder, *overrides), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a process that must end well; return what it said."""
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said[-3000:]
    assert "Traceback" not in said
    return said


def wait_for(holds: Callable[[], object], process: subprocess.Popen[str], seconds: float = 60) -> bool:
    """Wait until something holds or the process has ended; return whether it lives."""
    end = time.monotonic() + seconds
    while not holds() and process.poll() is None:
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.0005)
    return process.poll() is None


def events(folder: Path) -> list[dict]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in MEASURED} for line in lines]


def files(folder: Path) -> set[str]:
    """Return the names of all files of a run but its lock."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {".lock"}


def assert_same(run: Path, reference: Path, step: int = 16) -> None:
    """The same losses to the bit, the same report, the same model and final state, and nothing left over."""
    ours, theirs = events(run), events(reference)
    different = [(a, b) for a, b in zip(ours, theirs, strict=False) if a != b]
    assert not different and len(ours) == len(theirs), (different[:2], len(ours), len(theirs))
    assert (run / "report.json").read_bytes() == (reference / "report.json").read_bytes()
    for file in (reference / "model").iterdir():
        if file.name == "README.md":  # it names the machine and the number of ranks
            continue
        assert (run / "model" / file.name).read_bytes() == file.read_bytes(), file.name
    assert files(run) == files(reference)
    last = f"checkpoints/step-{step:08d}"
    state, tensors = f"{last}/state.json", f"{last}/tensors/rank-00000.safetensors"
    assert (run / state).read_bytes() == (reference / state).read_bytes()
    assert (run / tensors).read_bytes() == (reference / tensors).read_bytes()
