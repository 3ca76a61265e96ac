"""train.profile=true on the sample, and the counting of phases."""

import json
from pathlib import Path

import pytest
import torch

from xlmrxl_train import load_config, train
from xlmrxl_train.training.profile import PHASES, TRACED, WARM_UP, StepProfile

QUICK = [
    "recipe=demo",
    "model.path=null",
    "data.limit=60",
    "evaluate.every=0",
    "evaluate.test=false",
    "train.epochs=4",
    "train.batch_size=32",
    "train.save_model=false",
]


def test_a_profiled_run_writes_trace_and_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(load_config([*QUICK, f"run.dir={tmp_path / 'run'}", "train.profile=true"]))
    folder = tmp_path / "run" / "profile"
    assert {path.name for path in folder.iterdir()} == {"trace.json", "summary.md"}
    summary = (folder / "summary.md").read_text(encoding="utf-8")
    assert f"{8 - WARM_UP - TRACED} steps on cpu" in summary
    assert "Waiting for input takes" in summary
    assert all(f"| {name} |" in summary for name in PHASES)
    assert "aten::addmm" in summary
    names = {event.get("name") for event in json.loads((folder / "trace.json").read_text())["traceEvents"]}
    assert {"aten::addmm", "aten::gelu"} <= names
    shown = capsys.readouterr().err
    assert "| forward and backward |" in shown
    assert "profile written" in shown


def test_a_run_is_the_same_with_and_without_a_profile(tmp_path: Path) -> None:
    lines = []
    for name in ("true", "false"):
        train(load_config([*QUICK, f"run.dir={tmp_path / name}", f"train.profile={name}", "train.log_every=1"]))
        text = (tmp_path / name / "metrics.jsonl").read_text(encoding="utf-8")
        lines.append([json.loads(line)["loss"] for line in text.splitlines()])
    assert lines[0] == lines[1] and len(lines[0]) == 8
    assert not (tmp_path / "false" / "profile").exists()


def test_a_run_that_is_too_short_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(load_config([*QUICK, f"run.dir={tmp_path / 'run'}", "train.profile=true", "train.max_steps=2"]))
    assert f"train.profile needs more than {WARM_UP + TRACED} steps, had 2" in capsys.readouterr().err


def test_phases_add_up(tmp_path: Path) -> None:
    profile = StepProfile(tmp_path, torch.device("cpu"))
    for _ in profile.inputs(iter(range(WARM_UP + TRACED + 4))):
        with profile.step():
            for _ in range(2):
                with profile.phase("forward and backward"):
                    torch.ones(200, 200) @ torch.ones(200, 200)
            with profile.phase("optimizer"):
                pass
    assert len(profile.seconds) == 4
    for step in profile.seconds:
        assert sum(step[name] for name in PHASES) == pytest.approx(step["step"] + step["input wait"])
    assert profile.host_synchronisations() == 0
