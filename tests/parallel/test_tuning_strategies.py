"""What learns in part learns the same under every engine, and goes on from one to another."""

from pathlib import Path
from typing import Any

import pytest
import torch
from engines import DIVIDED, WORDS, assert_same, launch, tensors

from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.model import XLMRobertaXLConfig, XLMRobertaXLForMaskedLM
from xlmrxl_train.session import SAMPLE_TOKENIZER

pytestmark = pytest.mark.slow
STRATEGIES = {
    "single": (1, ["strategy=single"]),
    "ddp": (2, ["strategy=ddp"]),
    "fsdp2": (2, ["strategy=fsdp2"]),
    "zero1": (2, ["strategy=zero1"]),
    "zero3": (2, ["strategy=zero3", *DIVIDED]),
}
TUNINGS = {
    "lora": ["tuning=lora", "tuning.dropout=0"],
    "dora": ["tuning=dora", "tuning.dropout=0", "tuning.targets=[query,intermediate,output]"],
    "bias": ["tuning=bias"],
    "last layer": ["tuning=last_layers", "tuning.layers=1"],
    "lora, recomputed": ["tuning=lora", "tuning.dropout=0", "train.recompute=full"],
}
BF16 = {
    "lora in bf16": ["tuning=lora", "train.precision=bf16"],
    "dora in bf16": ["tuning=dora", "train.precision=bf16"],
    "int8": ["tuning=lora", "tuning.weights=int8", "train.precision=bf16"],
    "nf4": ["tuning=dora", "tuning.weights=nf4", "train.precision=bf16", "train.recompute=full"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, tokenizer = tmp_path_factory.mktemp("tuning"), Tokenizer.from_path(SAMPLE_TOKENIZER)
    torch.manual_seed(0)
    config = XLMRobertaXLConfig(
        vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
        max_position_embeddings=514, initializer_range=0.07,
    )  # fmt: skip
    XLMRobertaXLForMaskedLM(config).save_pretrained(path / "base")
    tokenizer.save(path / "base")
    return path


def jobs_of(strategy: str, folder: Path) -> dict[str, dict[str, Any]]:
    words = [*WORDS, f"model.path={folder / 'base'}", "train.tokens_per_micro_batch=512", *STRATEGIES[strategy][1]]
    jobs = {name: {"words": [*words, *more], "optimizer": "adamw"} for name, more in TUNINGS.items()}
    return jobs | {
        name: {"words": [*words, *more, "tuning.dropout=0"], "optimizer": "adamw", "steps": 8, "lr": 3e-3}
        for name, more in BF16.items()
    }


@pytest.fixture(scope="module")
def single(folder: Path) -> dict[str, Any]:
    return launch(1, folder / "single", jobs_of("single", folder), folder / "cache")


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2", "zero1", "zero3"])
def test_steps_are_those_of_one_process(strategy: str, single: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    ranks, _ = STRATEGIES[strategy]
    jobs = jobs_of(strategy, folder)
    saved = [str(folder / "single/lora"), 3]
    jobs["from one process"] = jobs["lora"] | {"load": saved, "steps": 1}
    results = launch(ranks, tmp_path / "out", jobs, folder / "cache")
    for job in TUNINGS:
        assert not any(results[job]["skipped"]) and not any(results[job]["unchanged"]), job
        assert results[job]["losses"] == pytest.approx(single[job]["losses"], rel=1e-5), job
        assert results[job]["norms"] == pytest.approx(single[job]["norms"], rel=1e-5), job
        assert_same(tensors(folder / "single" / job), tensors(tmp_path / "out" / job), 1e-5)
    for job in BF16:
        assert results[job]["losses"] == pytest.approx(single[job]["losses"], abs=0.03), job
    before, after = (tensors(place) for place in (folder / "single/lora", tmp_path / "out/from one process-loaded"))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
