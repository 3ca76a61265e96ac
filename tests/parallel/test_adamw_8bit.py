"""AdamW with moments in bytes: a checkpoint holds them to the bit, and ranks divide them by rows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import WORDS, assert_same, launch, tensors

from xlmrxl_train.config import OptimizerConfig
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.model import quantization
from xlmrxl_train.training.optimizer import OptimizerPlan

COMPILED = "fsdp2, compiled"
PLACES = {
    "single": (1, ["strategy=single"]),
    "ddp": (2, ["strategy=ddp"]),
    "fsdp2": (2, ["strategy=fsdp2"]),
    "fsdp2 x3": (3, ["strategy=fsdp2"]),
    "fsdp2_hybrid": (4, ["strategy=fsdp2", "strategy.shard_size=2"]),
    COMPILED: (2, ["strategy=fsdp2"]),
}
# An embedding of 1,025 rows and a feed-forward of 1,024 are wide enough; a rank of three has no row of some biases.
WIDE = [
    "optimizer=adamw_8bit", "model.embeddings=trainable", "model.hidden_size=256", "model.intermediate_size=1024",
    "model.num_hidden_layers=1",
]  # fmt: skip
IN_BYTES = {"roberta.embeddings.word_embeddings.weight", "roberta.encoder.layer.0.intermediate.dense.weight"}


def job(place: str, **more: object) -> dict[str, Any]:
    words = [*WORDS, *PLACES[place][1], *WIDE]
    return {"words": words, "optimizer": "adamw", "lr": 1e-3, **more}


def launched(place: str, folder: Path, *, source: Path) -> Path:
    """Make five steps in one go, and three of them, then two from there and two from `source`."""
    out = folder / place
    jobs = {
        "whole": job(place, steps=5),
        "saved": job(place, steps=3),
        "resumed": job(place, steps=2, load=[str(out / "saved"), 3]),
        "moved": job(place, steps=2, load=[str(source), 3]),
    }
    launch(PLACES[place][0], out, jobs, folder / "cache")
    return out


def assert_equal(expected: dict[str, torch.Tensor], got: dict[str, torch.Tensor]) -> None:
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)


@pytest.fixture(autouse=True, scope="module")
def _without_compiler() -> Iterator[None]:
    """torchao compiles its step, ten seconds for each shape; one test does so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHDYNAMO_DISABLE", "1")
        yield


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bytes")
    return launched("single", folder, source=folder / "single" / "saved")


def test_large_matrices_have_moments_in_bytes(single: Path) -> None:
    state = tensors(single / "saved")
    codes = {name for name, tensor in state.items() if tensor.dtype == torch.uint8}
    moments = {"exp_avg", "exp_avg_sq"}
    assert codes == {f"optimizer.{name}.{moment}" for name in IN_BYTES for moment in moments}
    for name in codes:
        assert state[f"{name}.scale"].shape == (len(state[name]), 1)
        assert state[f"{name}.scale"].any() and state[name].float().std() > 1


def test_a_run_goes_on_to_the_bit(single: Path) -> None:
    assert_equal(tensors(single / "whole"), tensors(single / "resumed"))


def test_it_trains_as_adamw_does(single: Path, tmp_path: Path) -> None:
    full = job("single", steps=5)
    full["words"] = [*full["words"], "optimizer=adamw"]
    launch(1, tmp_path / "out", {"whole": full}, tmp_path / "cache")
    theirs, ours = (
        {name: value for name, value in tensors(out / "whole").items() if name.startswith("model.")}
        for out in (tmp_path / "out", single)
    )
    assert_same(theirs, ours, 0.02)
    assert not torch.equal(theirs["model.classifier.dense.weight"], ours["model.classifier.dense.weight"])


@pytest.mark.slow
@pytest.mark.parametrize("place", list(PLACES)[1:])
def test_ranks_have_the_moments_of_one_process(
    place: str, single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == COMPILED:
        monkeypatch.delenv("TORCHDYNAMO_DISABLE")
    out = launched(place, tmp_path, source=single / "saved")
    assert_equal(tensors(out / "whole"), tensors(out / "resumed"))
    assert_equal(tensors(single / "saved"), tensors(out / "moved-loaded"))
    # Gradients differ in their last bits, and a byte that was rounded the other way is 1 of 255 steps away.
    for job_name in ("whole", "moved"):
        expected, got = tensors(single / "whole"), tensors(out / job_name)
        weights = [name for name in expected if name.startswith("model.")]
        assert_same({name: expected[name] for name in weights}, {name: got[name] for name in weights}, 1e-4)


def test_without_torchao(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    model = torch.nn.Linear(2, 2)
    with pytest.raises(
        ConfigError, match=r"optimizer\.name=adamw_8bit needs the package torchao, found none\. Run pip ins"
    ):
        OptimizerPlan(OptimizerConfig(name="adamw_8bit"), model).build(model)
