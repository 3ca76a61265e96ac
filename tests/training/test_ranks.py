"""Several ranks, one fault: all of them agree on what happened, and none waits for one that is gone."""

import json
import time
from pathlib import Path

import pytest
import torch
from jobs import WORDS, events

from tests.torchrun import forked
from xlmrxl_train.parallel import World
from xlmrxl_train.parallel.tensor_files import load_tensors

WORKER = Path(__file__).with_name("ranks.py")


def launch(out: Path, what: str, *words: str) -> tuple[int, str, float]:
    """Run the worker on two ranks; return exit code, what the ranks said, seconds."""
    out.mkdir(exist_ok=True)
    began = time.monotonic()
    done = forked(WORKER, str(out), what, *words)
    return done.returncode, done.stderr, time.monotonic() - began


def test_a_wrong_word_is_reported_once(tmp_path) -> None:
    code, said, _ = launch(tmp_path / "out", "command", *WORDS, f"run.dir={tmp_path / 'run'}", "seed=x")
    assert code == 2, said
    assert said.count("error: ") == said.count("error: seed must be a whole number, got x.\n") == 1, said
    assert not (tmp_path / "run").exists()
    assert "xlmrxl_train/cli" not in said  # no traceback of ours


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_checkpoint_that_one_rank_cannot_write_ends_all_with_one_message(tmp_path, rank) -> None:
    folder = tmp_path / "run"
    code, said, seconds = launch(tmp_path / "out", f"small_files:{rank}", *WORDS, f"run.dir={folder}")
    assert code == 2, said  # of both ranks: none was aborted
    message = f"error: {folder}/checkpoints/step-00000003 could not be written: File too large. Earlier checkpoints"
    assert said.count(message) == 1, said
    assert seconds < 120  # strategy.timeout_minutes is 30
    assert "xlmrxl_train/training/checkpoint.py" not in said  # no traceback of ours
    assert not list((folder / "checkpoints").iterdir())


def test_a_gradient_that_is_nan_on_one_rank_changes_no_weight_on_any(tmp_path) -> None:
    out, folder = tmp_path, tmp_path / "run"
    done = forked(WORKER, str(out), "poison:1", *WORDS, f"run.dir={folder}", "train.max_skipped=3")
    assert done.returncode == 0, done.stderr
    for step in range(1, 17):
        ranks = [torch.load(out / f"{rank}-{step}.pt", weights_only=True) for rank in (0, 1)]
        assert [rank["skipped"] for rank in ranks] == [step in (4, 5)] * 2
        assert [rank["same"] for rank in ranks] == [step in (4, 5)] * 2
        assert all(torch.equal(a, b) for a, b in zip(ranks[0]["after"], ranks[1]["after"], strict=True))
    skips = [event for event in events(folder) if event["event"] == "skip"]
    assert [event["step"] for event in skips] == [4, 5]
    assert len(skips[0]["examples"]) == 28
    assert all(name.startswith("en/") for name in skips[0]["examples"])
    assert [event["skipped"] for event in events(folder) if event["event"] == "train"] == [0, 0, 0, 1, *[2] * 12]
    state = json.loads((folder / "checkpoints/step-00000016/state.json").read_text())
    assert (state["skipped"], state["skipped_in_a_row"]) == (2, 0)


@pytest.mark.slow
def test_too_many_skipped_steps_end_all_ranks_with_one_message(tmp_path) -> None:
    folder = tmp_path / "run"
    code, said, seconds = launch(tmp_path / "out", "poison:0", *WORDS, f"run.dir={folder}", "train.max_skipped=2")
    assert code == 2, said
    message = "error: 2 steps in a row had a loss or gradient that is not finite (train.max_skipped=2). Lower"
    assert said.count(message) == 1, said
    assert seconds < 120


def test_divided_tensors_are_read_in_every_other_division(tmp_path) -> None:
    out = tmp_path
    done = forked(WORKER, str(out), "shards")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (out / "0").iterdir()) == [
        "index.json", "rank-00000.safetensors", "rank-00001.safetensors",
    ]  # fmt: skip
    got = {"matrix": torch.zeros(7, 5), "cube": torch.zeros(3, 4, 5).bfloat16()}
    load_tensors(out / "0", got, World())  # in one process
    assert torch.equal(got["matrix"], torch.arange(35.0).view(7, 5))
    load_tensors(out / "1", got, World())
    assert torch.equal(got["cube"], torch.arange(60.0).view(3, 4, 5).bfloat16())
