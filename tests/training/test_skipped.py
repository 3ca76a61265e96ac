"""Steps whose loss or gradient is not finite, in one process."""

import itertools
from dataclasses import replace

import pytest
import torch
from jobs import WORDS, events, run

from xlmrxl_train.cli import main
from xlmrxl_train.parallel.single import SingleStrategy


@pytest.mark.parametrize("where", ["gradient", "loss"])
def test_a_step_that_is_not_finite_changes_no_weight_and_is_counted(tmp_path, monkeypatch, capfd, where) -> None:
    """The loss alone: its sum overflowed, while the gradient is as it should be."""
    accumulate, calls, weights = SingleStrategy.accumulate, 0, []

    def poisoned(self, inputs, scale, *, last):
        nonlocal calls
        calls += 1
        weights.append([parameter.detach().clone() for parameter in self.model.parameters()])
        if calls == 4 and where == "gradient":
            scale = scale * float("inf")
        if calls == 4 and where == "loss":  # whose own gradient is finite
            with_infinite_loss = self.model.register_forward_hook(
                lambda model, arguments, output: replace(output, loss_sum=output.loss_sum + torch.inf)
            )
        loss = accumulate(self, inputs, scale, last=last)
        if calls == 4 and where == "loss":
            with_infinite_loss.remove()
        return loss

    monkeypatch.setattr(SingleStrategy, "accumulate", poisoned)
    assert run(tmp_path / "run") is not None
    same = [all(torch.equal(a, b) for a, b in zip(*pair, strict=True)) for pair in itertools.pairwise(weights)]
    assert same == [step == 4 for step in range(1, 16)]
    assert "step 4 skipped: loss " in capfd.readouterr().err
    [skip] = [event for event in events(tmp_path / "run") if event["event"] == "skip"]
    assert skip["step"] == 4 and skip["examples"]
    losses = [event["loss"] for event in events(tmp_path / "run") if event["event"] == "train"]
    assert [loss is None for loss in losses] == [step == 4 for step in range(1, 17)]


def test_a_run_that_diverges_ends_clearly(tmp_path, capfd) -> None:
    """A learning rate that is far too high, nothing else."""
    words = [*WORDS, f"run.dir={tmp_path / 'run'}", "optimizer.lr=1e30", "train.max_skipped=3", "evaluate.every=0"]
    assert main(words) == 2
    said = capfd.readouterr().err
    assert "error: 3 steps in a row had a loss or gradient that is not finite (train.max_skipped=3). " in said
    assert "Lower optimizer.lr, lengthen schedule.warmup, or look at the examples named in metrics.jsonl." in said
    assert "Traceback" not in said
    assert len([event for event in events(tmp_path / "run") if event["event"] == "skip"]) == 3
