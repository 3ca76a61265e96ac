"""Back to a checkpoint in the middle of a run: forward uses what was loaded, and nothing that an engine had kept."""

from pathlib import Path

import pytest
from engines import WORDS, launch

RELOAD = Path(__file__).parent / "reload.py"


@pytest.mark.parametrize("strategy", [
    "fsdp2", "zero3", pytest.param("zero1", marks=pytest.mark.slow), pytest.param("ddp", marks=pytest.mark.slow),
])  # fmt: skip
def test_predictions_after_loading_are_those_before_saving(strategy: str, tmp_path: Path) -> None:
    """Under the engines' own thresholds, which keep so small a model gathered from step to step."""
    jobs = {
        precision: {"words": [*WORDS, f"strategy={strategy}", f"train.precision={precision}"]}
        for precision in ("bf16", "fp32")
    }
    for result in launch(2, tmp_path / "out", jobs, tmp_path / "cache", RELOAD).values():
        assert result["loaded"] == result["saved"] != result["later"]
        assert result["dtypes"] == ["torch.float32"]
