"""A checkpoint belongs to the model: saved under any strategy and number of ranks, it goes on under any other."""

from pathlib import Path
from typing import Any

import pytest
import torch
from engines import DIVIDED, WORDS, assert_same, launch, tensors

PLACES = {
    "single": (1, ["strategy=single"]),
    "ddp x2": (2, ["strategy=ddp"]),
    "fsdp2 x2": (2, ["strategy=fsdp2"]),
    "zero3 x2": (2, ["strategy=zero3", *DIVIDED]),
    "zero3 x3": (3, ["strategy=zero3", *DIVIDED]),
    "zero3_hierarchical x4": (4, ["strategy=zero3", *DIVIDED, "strategy.hierarchical_size=2"]),
    "zero1 x2": (2, ["strategy=zero1"]),
    "zero3_offload x2": (2, ["strategy=zero3_offload", *DIVIDED, "strategy.pin_memory=false"]),
}
ALL = ["single", "ddp x2", "fsdp2 x2", "zero3 x2", "zero3 x3"]
MORE = ["zero1 x2", "zero3_offload x2", "zero3_hierarchical x4"]
SAVED = 3  # steps before the checkpoint


def job(place: str, **more: object) -> dict[str, Any]:
    """Some weights frozen, the others in two groups; a micro-batch or two per rank."""
    words = [*WORDS, *PLACES[place][1], "train.tokens_per_micro_batch=512"]
    return {"words": words, "optimizer": "adamw", "freeze": True, **more}


def check(sources: list[str], targets: list[str], folder: Path) -> None:
    for source in sources:
        ranks = PLACES[source][0]
        jobs = {"saved": job(source, steps=SAVED), "whole": job(source, steps=SAVED + 2)}
        launch(ranks, folder / source, jobs, folder / "cache")
    for target in targets:
        ranks, out = PLACES[target][0], folder / f"to {target}"
        jobs = {source: job(target, steps=2, load=[str(folder / source / "saved"), SAVED]) for source in sources}
        launch(ranks, out, jobs, folder / "cache")
        for source in sources:
            saved, loaded = tensors(folder / source / "saved"), tensors(out / f"{source}-loaded")
            assert saved.keys() == loaded.keys()
            assert all(torch.equal(saved[name], loaded[name]) for name in saved), (source, target)
            exact = source == target
            assert_same(tensors(folder / source / "whole"), tensors(out / source), 0.0 if exact else 1e-5)


def test_zero3_to_fsdp2_and_one_process(tmp_path) -> None:
    check(["zero3 x2"], ["zero3 x2", "fsdp2 x2", "single"], tmp_path)


def test_frozen_weights_are_the_same_in_bf16(tmp_path) -> None:
    """Held in the dtype of forward everywhere, so a checkpoint passes through any strategy without a changed bit."""
    words, places = ["train.precision=bf16"], ["fsdp2 x2", "zero3 x2", "zero1 x2", "single"]
    given, frozen = None, "model.roberta.encoder.layer.0.output.dense.weight"
    for place in places:
        done = job(place, steps=1, **({"load": given} if given else {}))
        done["words"] += words
        out = tmp_path / place
        launch(PLACES[place][0], out, {"saved": done}, tmp_path / "cache")
        if given:
            saved, loaded = tensors(Path(given[0])), tensors(out / "saved-loaded")
            assert saved.keys() == loaded.keys()
            assert all(
                torch.equal(saved[name], loaded[name]) and saved[name].dtype == loaded[name].dtype for name in saved
            ), place
        given = [str(out / "saved"), places.index(place) + 1]
        assert tensors(out / "saved")[frozen].dtype == torch.bfloat16


@pytest.mark.slow
def test_from_every_strategy_to_every_other(tmp_path) -> None:
    check([*ALL, *MORE], [*ALL, *MORE], tmp_path)
