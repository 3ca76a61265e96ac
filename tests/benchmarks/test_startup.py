"""A model of 60 MB goes from a file through sharded training to the Hub's layout; `benchmarks.startup` has 7 GB."""

import json
from pathlib import Path

import pytest

from benchmarks import startup


@pytest.mark.parametrize("strategy", [pytest.param("zero3", marks=pytest.mark.slow), "fsdp2"])
def test_each_rank_reads_its_bytes_and_frozen_weights_come_out_as_they_went_in(
    strategy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.json"
    options = ["--shape", "4x512", "--rows", "25088", "--device", "cpu", "--folder", str(tmp_path)]
    assert startup.main([*options, "--strategies", strategy, "--json", str(target)]) == 0, capsys.readouterr().out
    found = json.loads(target.read_text())
    assert found[strategy]["compared"] == {
        "frozen": 53, "frozen_equal": 53, "trained": 16, "trained_differ": 16, "wrong": [],
    }  # fmt: skip
    read = [values["bytes_read"] for values in found[strategy]["ranks"]]
    head = 2 * (512 * 512 + 3 * 512 + 25088)  # lm_head of the file, which classification leaves out
    header = found["file_bytes"] - head - sum(read)
    assert 0 < header < 20_000
    assert max(read) < 0.501 * found["file_bytes"]
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
