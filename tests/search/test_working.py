"""How GPUs are divided among trials, and how a trial's end is put into words."""

import json
from pathlib import Path

import pytest

from xlmrxl_train.errors import ConfigError
from xlmrxl_train.search.working import _say_pruned, _why, devices, usable


def test_each_trial_gets_gpus_of_its_own() -> None:
    assert usable("", 4, 2) == ["0", "1", "2", "3"]
    assert usable("GPU-7,5", 2, 2) == ["GPU-7", "5"]
    assert usable("", 0, 3) == []  # they share the processor
    assert devices(4, "cpu") == devices(1, "auto") == []
    with pytest.raises(ConfigError) as caught:
        usable("", 2, 4)
    assert str(caught.value) == "--workers must be at most 2, the GPUs here, got 4. Each trial needs its own."


def test_why_a_trial_failed(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("$ command\nerror: data.root must be a folder\n\n", encoding="utf-8")
    assert _why(tmp_path, log, 2) == "exit code 2: data.root must be a folder"
    assert _why(tmp_path, log, -9) == "ended by SIGKILL"
    (tmp_path / "failed.json").write_text(json.dumps({"reason": "RunError: 10 steps in a row", "step": 10}))
    assert _why(tmp_path, log, 2) == "RunError: 10 steps in a row"


def test_a_pruned_run_keeps_the_step_that_it_stopped_at(tmp_path: Path) -> None:
    marker = tmp_path / "stopped.json"
    for step in (0, 7):  # killed before it could say so; or not
        _say_pruned(marker, "pruned: behind")
        assert json.loads(marker.read_text()) == {"reason": "pruned: behind", "step": step}
        marker.write_text(json.dumps({"reason": "SIGTERM", "step": 7}))
