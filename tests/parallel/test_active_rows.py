"""Training the rows that the training set contains gives what training all of them gives, under every strategy."""

from pathlib import Path
from typing import Any

import pytest
import torch
from engines import DIVIDED, WORDS, launch

from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.model import XLMRobertaXLConfig, XLMRobertaXLForSequenceClassification
from xlmrxl_train.model.weights import open_checkpoint
from xlmrxl_train.session import SAMPLE_TOKENIZER
from xlmrxl_train.training.export import weights_in

SCRIPT = Path(__file__).with_name("active_rows.py")
STRATEGIES = {
    "single": (1, ["strategy=single"]),
    "ddp": (2, ["strategy=ddp"]),
    "fsdp2": (2, ["strategy=fsdp2", "strategy.prefetch_layers=2"]),
    "zero3": (2, ["strategy=zero3", *DIVIDED]),
    "zero3, prefetching": (2, ["strategy=zero3", "strategy.persistence_kb=0"]),
    "zero1": (2, ["strategy=zero1"]),
}
TABLE, STEPS = "roberta.embeddings.word_embeddings.weight", 20
VARIANTS = {
    "fp32": ["train.max_grad_norm=0"],
    "bf16": ["train.max_grad_norm=0", "train.precision=bf16"],
    "of a bf16 file": ["train.max_grad_norm=0", "train.precision=bf16"],
    "clipped": ["train.max_grad_norm=0.05"],
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One model with more rows than the tokenizer has tokens, in two dtypes."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 96}
    config = XLMRobertaXLConfig(vocab_size=5003, initializer_range=0.07, num_labels=3, **sizes)
    model, folder = XLMRobertaXLForSequenceClassification(config), tmp_path_factory.mktemp("models")
    for dtype in (torch.float32, torch.bfloat16):
        model.to(dtype).save_pretrained(folder / str(dtype))
        Tokenizer.from_path(SAMPLE_TOKENIZER).save(folder / str(dtype))
    return {"file": folder / "torch.float32", "bf16 file": folder / "torch.bfloat16"}


def jobs_of(strategy: str, models: dict[str, Path]) -> dict[str, dict[str, Any]]:
    words = [word for word in WORDS if not word.startswith(("model.path", "optimizer.eps"))]
    words += ["train.batch_size=16", "data.limit=60", "evaluate.bootstrap=0", *STRATEGIES[strategy][1]]
    jobs = {}
    for variant, more in VARIANTS.items():
        model = models["bf16 file" if variant == "of a bf16 file" else "file"]
        for embeddings in ("auto", "trainable"):
            own = [*more, f"model.embeddings={embeddings}", f"model.path={model}"]
            jobs[f"{variant}, {embeddings}"] = {"words": [*words, *own], "steps": STEPS}
    return jobs


def exported(folder: Path) -> dict[str, torch.Tensor]:
    return {entry.name: entry.read() for entry in weights_in(folder / f"step-{STEPS:08d}")}


@pytest.mark.parametrize("strategy", [
    "single", *(pytest.param(name, marks=pytest.mark.slow) for name in list(STRATEGIES)[1:]),
])  # fmt: skip
def test_it_is_the_same_run(strategy: str, models: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    results = launch(STRATEGIES[strategy][0], out, jobs_of(strategy, models), tmp_path / "cache", SCRIPT)
    for variant in VARIANTS:
        active, trainable = results[f"{variant}, auto"], results[f"{variant}, trainable"]
        ours, theirs = exported(out / f"{variant}, auto"), exported(out / f"{variant}, trainable")
        assert ours.keys() == theirs.keys() and len(active["losses"]) == STEPS
        assert active["losses"][-1] != active["losses"][0] and trainable["frozen"] == 0
        # The words that English lacks are those of the file, bit by bit, whatever the engine computes in.
        before = open_checkpoint(models["bf16 file" if variant == "of a bf16 file" else "file"]).read(TABLE).float()
        same = (ours[TABLE] == before).all(1)
        assert int(same.sum()) * 64 >= active["frozen"] > 0.9 * before.numel()
        assert not same.all()
        if variant == "clipped":
            assert max(active["norms"]) > 0.05
            assert active["losses"] == pytest.approx(trainable["losses"], rel=1e-5)
            for name, tensor in theirs.items():
                assert float((ours[name] - tensor).abs().max()) <= 1e-4, name  # Adam enlarges rounding
            continue
        assert active["losses"] == trainable["losses"]
        assert active["norms"] == pytest.approx(trainable["norms"], rel=1e-5)
        assert active["logits"] == trainable["logits"]  # one example each in English and in three frozen languages
        for name, tensor in theirs.items():
            assert ours[name].dtype == tensor.dtype == torch.float32 and torch.equal(ours[name], tensor), name
        for code in ("en", "de", "zh", "hi"):
            files = [out / f"{variant}, {embeddings}" / f"{code}.jsonl" for embeddings in ("auto", "trainable")]
            assert files[0].read_bytes() == files[1].read_bytes()
        if strategy in ("fsdp2", "zero3", "zero3, prefetching"):
            first, in_prediction, later = active["gathered"]
            assert 0 < first == later < active["frozen"] <= in_prediction
            assert min(trainable["gathered"]) > active["frozen"]
