"""Starts `steps.py` or another script on any number of ranks, and reads what it wrote."""

import json
from pathlib import Path
from typing import Any

import torch

from tests.torchrun import forked
from xlmrxl_train.parallel import World
from xlmrxl_train.parallel.tensor_files import load_tensors, read_index

STEPS = Path(__file__).parent / "steps.py"
WORDS = [
    "recipe=demo", "model.path=null", "train.precision=fp32", "train.batch_size=40", "data.limit=150",
    "model.hidden_dropout_prob=0", "model.attention_probs_dropout_prob=0", "strategy.device=cpu",
    "strategy.timeout_minutes=3", "optimizer.eps=0.001",  # Adam enlarges rounding where a gradient is nearly 0
]  # fmt: skip
# Nothing stays gathered; else a small model is never really divided.
DIVIDED = [f"strategy.{name}=0" for name in ("persistence_kb", "prefetch_mb", "max_live_mb", "max_reuse_distance_mb")]


def launch(ranks: int, out: Path, jobs: dict[str, Any], cache: Path, script: Path = STEPS) -> dict[str, Any]:
    """Do the jobs on so many ranks and return what rank 0 reports."""
    out.mkdir()
    done = forked(script, str(out), json.dumps(jobs), ranks=ranks, seconds=500, **environment(cache))
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((out / "results.json").read_text())


def environment(cache: Path) -> dict[str, str]:
    """What a worker finds the package and its data by."""
    return {"XLMRXL_CACHE": str(cache), "PYTHONPATH": str(STEPS.parents[2])}


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Read every tensor of a folder, whole."""
    found = {
        name: torch.zeros(entry["shape"], dtype=getattr(torch, entry["dtype"]))
        for name, entry in read_index(folder).items()
    }
    load_tensors(folder, found, World())
    return found


def assert_same(expected: dict[str, torch.Tensor], got: dict[str, torch.Tensor], bound: float) -> None:
    """Compare by each tensor's norm."""
    assert expected.keys() == got.keys()
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.dtype == torch.float32, name
        if "self.key.bias" in name:  # softmax ignores it: its gradient is rounding and nothing else
            assert float((tensor - got[name]).abs().max()) < 1e-2, name
        else:
            assert float((tensor - got[name]).norm()) <= bound * float(tensor.norm()), name
