"""train.compile under the engines that allow it: the steps of one process that compiles nothing."""

from pathlib import Path

import pytest
from engines import WORDS, assert_same, launch, tensors

KINDS = {"kept": [], "recomputed": ["train.recompute=full"]}


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled")
    launch(1, folder / "out", {"plain": {"words": [*WORDS, "strategy=single"], "optimizer": "adamw"}}, folder / "cache")
    return folder / "out" / "plain"


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["single", "ddp", "fsdp2", "zero1", "zero2"])
def test_compiled_layers_make_the_same_steps(strategy: str, single: Path, tmp_path: Path) -> None:
    jobs = {
        kind: {"words": [*WORDS, f"strategy={strategy}", "train.compile=true", *words], "optimizer": "adamw"}
        for kind, words in KINDS.items()
    }
    results = launch(1 if strategy == "single" else 2, tmp_path / "out", jobs, tmp_path / "cache")
    # Projections, what follows attention, feed-forward; the first two once more for the last layer's first tokens.
    assert results["kept"]["graphs"] == 5
    for kind in KINDS:
        assert not any(results[kind]["skipped"])
        assert_same(tensors(single), tensors(tmp_path / "out" / kind), 1e-5)
