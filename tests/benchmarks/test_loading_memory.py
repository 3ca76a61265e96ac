"""The benchmark of loading on a model of 0.6 GB; `benchmarks.loading` has 7 GB."""

import json
from pathlib import Path

import pytest

from benchmarks import loading


@pytest.mark.slow
def test_weights_go_straight_to_their_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--shape", "2xXL", "--rows", "25088", "--ways", "device_map=auto", "--output", str(tmp_path / "out.json")]
    assert loading.main(words) == 0, capsys.readouterr()
    found = json.loads((tmp_path / "out.json").read_text())["found"]
    assert list(found) == ["device_map=auto"]
    assert 0.4 < found["device_map=auto"]["load_gb"] < 1.15 * found["device_map=auto"]["held_gb"]


def test_too_much_memory_is_a_fault() -> None:
    values = {"held_gb": 1.0, "load_gb": 1.2, "finite": True}
    assert loading.faults_of({"cpu": values}) == ["cpu: 1.20 GB while loading, more than 1.15 x 1.00"]
    assert loading.faults_of({"cpu": values | {"load_gb": 1.1}}) == []
    assert loading.faults_of({"cpu": values | {"held_gb": 0.1, "finite": False}}) == ["cpu: the logits are not finite"]
