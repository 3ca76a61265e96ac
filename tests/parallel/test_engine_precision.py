"""One precision policy under every engine, read off while a step in bf16 runs."""

import json
from pathlib import Path

import pytest
from engines import DIVIDED, environment

from tests.torchrun import forked

FLOAT, BF16 = ["torch.float32"], ["torch.bfloat16"]


@pytest.mark.parametrize("strategy", ["fsdp2", "zero3", *(pytest.param(n, marks=pytest.mark.slow) for n in (
    "ddp", "zero1", "zero2", "zero3_offload"))])  # fmt: skip
def test_products_are_bf16_and_all_that_is_summed_is_float32(strategy: str, tmp_path: Path) -> None:
    words = ["recipe=demo", "model.path=null", "train.precision=bf16", "data.limit=80", "strategy.device=cpu"]
    words += [f"strategy={strategy}", *(DIVIDED if strategy.startswith("zero3") else [])]
    script = Path(__file__).with_name("precision.py")
    done = forked(script, str(tmp_path / "out.json"), *words, **environment(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr[-4000:]
    seen = json.loads((tmp_path / "out.json").read_text())
    assert seen["products"] == seen["Linear output"] == BF16
    for kind in (
        "layer norm", "LayerNorm output", "softmax", "loss", "residual stream input", "residual stream output",
        "reduction", "master weights", "moments",
    ):  # fmt: skip
        assert seen[kind] == FLOAT, kind
