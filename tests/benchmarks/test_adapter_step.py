"""The benchmark of adapters on a small model; `benchmarks.adapter_step` has XL's shape."""

import json
from pathlib import Path

import pytest

from benchmarks import adapter_step


@pytest.mark.slow
def test_a_small_step_is_measured(tmp_path: Path) -> None:
    words = ["--shape", "tiny", "--rows", "1024", "--ways", "nf4", "--output", str(tmp_path / "out.json")]
    assert adapter_step.main(words) == 0
    found = json.loads((tmp_path / "out.json").read_text())["found"]["nf4"]
    # rank 16 on 2 layers: 4 squares of 64, and two matrices of 64 x 256; and the head
    assert found["trained"] == 2 * 16 * (4 * 128 + 2 * 320) + 64 * 65 + 65 * 3
    assert found["tokens"] == 512 and set(found["peak_gb"]) == set(adapter_step.PHASES)
