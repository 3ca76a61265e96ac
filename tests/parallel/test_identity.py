"""The same run, however it is cut: gradients over micro-batches and ranks, scores over ranks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

WORKER = Path(__file__).parent / "worker.py"

# 50 examples in batches of 40: the last step has 10, of unequal lengths.
SMALL = [
    "recipe=demo",
    "train.precision=fp32",
    "train.batch_size=40",
    "data.limit=50",
    "model.hidden_dropout_prob=0",
    "model.attention_probs_dropout_prob=0",
]


def run(tmp_path: Path, what: str, name: str, *overrides: str, ranks: int = 1) -> object:
    """Run the worker on some ranks and return what it saved."""
    out = tmp_path / f"{name}.pt"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    command = [sys.executable, *launcher, str(WORKER), what, str(out), *SMALL, f"run.dir={tmp_path / name}", *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "XLMRXL_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(out, weights_only=True)


def assert_same_gradients(expected: dict[str, torch.Tensor], got: dict[str, torch.Tensor]) -> None:
    norm = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
    assert set(expected) == set(got)
    for name, gradient in expected.items():
        assert (gradient - got[name]).norm() <= 1e-5 * norm, name


@pytest.mark.parametrize("task", ["classification", "masked"])
def test_gradients_do_not_depend_on_micro_batches_and_ranks(tmp_path, task) -> None:
    masked = [] if task == "classification" else ["recipe=demo_pretrain", "train.languages=[de,zh]", "data.limit=25"]
    one = run(tmp_path, "gradients", "one", *masked)
    four = run(tmp_path, "gradients", "four", *masked, "train.tokens_per_micro_batch=64", "task.max_length=64")
    two_ranks = run(tmp_path, "gradients", "two", *masked, "strategy=ddp", ranks=2)
    both = run(
        tmp_path, "gradients", "both", *masked, "strategy=ddp", "train.tokens_per_micro_batch=64", "task.max_length=64",
        ranks=2,
    )  # fmt: skip
    assert one["micro_batches"] == 1
    assert four["micro_batches"] >= 4
    assert both["micro_batches"] >= 2
    for other in (four, two_ranks, both):
        assert_same_gradients(one["gradients"], other["gradients"])


def test_a_rank_without_work_does_not_hang_and_counts_nothing(tmp_path) -> None:
    few = ["data.limit=41"]  # the last step has one example: two of three ranks have none
    one = run(tmp_path, "gradients", "one", *few)
    three = run(tmp_path, "gradients", "three", *few, "strategy=ddp", ranks=3)
    assert_same_gradients(one["gradients"], three["gradients"])


def test_scores_are_the_same_to_the_last_digit_on_one_two_and_three_ranks(tmp_path) -> None:
    settings = ["evaluate.tokens_per_batch=600", "evaluate.bootstrap=50", "seed=3"]
    one = run(tmp_path, "scores", "one", *settings)
    two = run(tmp_path, "scores", "two", *settings, "strategy=ddp", ranks=2)
    three = run(tmp_path, "scores", "three", *settings, "strategy=ddp", ranks=3)
    assert len(one) == 15
    assert one == two == three


def test_scores_with_fewer_batches_than_ranks(tmp_path) -> None:
    settings = ["evaluate.languages=[en]", "data.limit=5", "evaluate.bootstrap=0"]
    one = run(tmp_path, "scores", "one", *settings)
    three = run(tmp_path, "scores", "three", *settings, "strategy=ddp", ranks=3)
    assert one == three
    assert one["en"][1] == 5
