"""Every engine makes the same steps as one process, from the same weights and data."""

from pathlib import Path
from typing import Any

import pytest
from engines import DIVIDED, WORDS, assert_same, launch, tensors

STRATEGIES = {
    "single": (1, ["strategy=single"]),
    "ddp": (2, ["strategy=ddp"]),
    "fsdp2": (2, ["strategy=fsdp2"]),
    "fsdp2_offload": (2, ["strategy=fsdp2", "strategy.offload=true", "strategy.pin_memory=false"]),
    "fsdp2_hybrid": (4, ["strategy=fsdp2", "strategy.shard_size=2"]),
    "zero1": (2, ["strategy=zero1"]),
    "zero2": (2, ["strategy=zero2"]),
    "zero3": (2, ["strategy=zero3", *DIVIDED]),
    "zero3_hierarchical": (4, ["strategy=zero3", *DIVIDED, "strategy.hierarchical_size=2"]),
    "zero3_offload": (2, ["strategy=zero3_offload", *DIVIDED, "strategy.pin_memory=false"]),
}
CUTS = {1: [], 2: ["train.tokens_per_micro_batch=512"], 4: ["train.tokens_per_micro_batch=256"]}
MASKED = ["recipe=demo_pretrain", "train.languages=[de,zh]", "data.limit=60", "task.max_length=48"]

CAUSAL = ["recipe=clm", "model=tiny", "dataset=sample_parallel", "task.join=none", *MASKED[1:]]


def jobs_of(strategy: str) -> dict[str, dict[str, Any]]:
    words = [*WORDS, *STRATEGIES[strategy][1]]
    jobs: dict[str, dict[str, Any]] = {
        f"{optimizer} {cut}": {"words": [*words, *CUTS[cut]], "optimizer": optimizer, "freeze": cut == 4}
        for optimizer, cut in (("sgd", 1), ("sgd", 2), ("adamw", 1), ("adamw", 2), ("adamw", 4))
    }
    jobs["masked"] = {"words": [*words, *MASKED, *CUTS[4]], "optimizer": "adamw"}  # a tied matrix, unequal targets
    jobs["causal"] = {"words": [*words, *CAUSAL, *CUTS[4]], "optimizer": "adamw"}
    jobs["bf16"] = {"words": [*words, "train.precision=bf16"], "optimizer": "adamw", "steps": 20, "lr": 1e-3}
    random = {"words": [*words, "model.hidden_dropout_prob=0.1"], "optimizer": "adamw"}
    return jobs | {"dropout": random, "dropout, looked": random | {"look": True}}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("strategies") / "cache"


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("single") / "out"
    return out, launch(1, out, jobs_of("single"), cache)


@pytest.mark.parametrize("strategy", [
    "ddp", "fsdp2", "zero3",
    *(pytest.param(name, marks=pytest.mark.slow) for name in (
        "fsdp2_offload", "fsdp2_hybrid", "zero1", "zero2", "zero3_hierarchical", "zero3_offload")),
])  # fmt: skip
def test_three_steps_are_those_of_one_process(strategy, single, cache, tmp_path) -> None:
    reference, expected = single
    ranks, _ = STRATEGIES[strategy]
    results = launch(ranks, tmp_path / "out", jobs_of(strategy), cache)
    for job, result in results.items():
        assert not any(result["skipped"]) and not any(result["unchanged"]), job
        if job == "bf16" or "dropout" in job:  # ranks draw masks of their own
            continue
        assert result["losses"] == pytest.approx(expected[job]["losses"], rel=1e-5), job
        assert result["norms"] == pytest.approx(expected[job]["norms"], rel=1e-5), job
        assert_same(tensors(reference / job), tensors(tmp_path / "out" / job), 1e-5)
    # A look at the validation split leaves no trace: not in the mode, not in weights that were gathered for it.
    assert results["dropout"]["losses"] == results["dropout, looked"]["losses"]
    assert results["dropout"]["losses"] != results["adamw 1"]["losses"]
    # 20 steps with products in bf16, whose rounding differs between engines: losses stay within this band.
    differences = [abs(a - b) for a, b in zip(results["bf16"]["losses"], expected["bf16"]["losses"], strict=True)]
    assert max(differences) < 0.02, differences
    assert expected["bf16"]["losses"][-1] < expected["bf16"]["losses"][0] - 0.05  # it learns


def test_cuts_are_what_they_say(single) -> None:
    _, expected = single
    assert expected["adamw 1"]["micro_batches"] == 1
    assert expected["adamw 2"]["micro_batches"] == 2
    assert expected["adamw 4"]["micro_batches"] == 4
