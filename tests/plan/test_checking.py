"""A model that memory cannot hold is refused before any is taken, and so is one that cannot be trained."""

from pathlib import Path

import pytest
import torch
from torch import nn

from xlmrxl_train.config import VARIANTS, Config
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.parallel import World, memory
from xlmrxl_train.plan import checking
from xlmrxl_train.plan.checking import check_memory
from xlmrxl_train.plan.planning import Planner

GPU = World(device=torch.device("cuda", 0))


class Advice:
    """Stands where a planner would be made: what it says has tests of its own."""

    def advice(self) -> str:
        return "Do this."


@pytest.fixture
def model() -> nn.Module:
    """A model of 1,000,000 parameters: 4 MB of weights, 16 MB in training."""
    return nn.Linear(1000, 1000, bias=False, device="meta")


def machine_with(megabytes: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "memory_of", lambda device: int(megabytes * 1e6))


def check(world: World, strategy: str, model: nn.Module, *, training: bool) -> str | None:
    def planner() -> Planner:
        return Advice()  # type: ignore[return-value]

    config = Config(strategy=VARIANTS["strategy"][strategy]())
    return check_memory(world, config, model, training=training, planner=planner)


def test_weights_that_do_not_fit_are_refused(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    model.weight = nn.Parameter(torch.empty(100_000, 100_000, device="meta"))
    machine_with(24_000, monkeypatch)
    for world, place in ((World(), "machine"), (GPU, "GPU")):
        with pytest.raises(ConfigError) as caught:
            check(world, "ddp", model, training=False)
        assert str(caught.value) == (
            "model must fit into memory: 10,000,000,000 parameters need 40.0 GB for weights, "
            f"this {place} has 24.0 GB. Choose a smaller model or a larger {place}."
        )


def test_ranks_of_a_machine_share_its_memory(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    machine_with(7, monkeypatch)
    assert check(World(), "auto", model, training=False) is None
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"need 4.0 MB for weights in each of 2 processes, this machine has 7.0 MB"):
        check(World(), "auto", model, training=False)
    assert check(GPU, "auto", model, training=False) is None  # each has a GPU of its own


def test_training_that_does_not_fit_is_refused(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    model.weight = nn.Parameter(torch.empty(100_000, 10_000, device="meta"))
    machine_with(15_000, monkeypatch)
    assert check(World(), "auto", model, training=False) is None
    with pytest.raises(ConfigError) as caught:
        check(World(), "auto", model, training=True)
    assert str(caught.value) == (
        "training must fit into memory: 1,000,000,000 trained parameters need 16.0 GB for weights, gradients and "
        "moments, this machine has 15.0 GB. Do this."
    )
    model.weight.requires_grad_(False)
    assert check(World(), "auto", model, training=True) is None


@pytest.mark.parametrize(
    ("strategy", "gigabytes"),
    [("fsdp2", 4.0), ("zero1", 11.0), ("zero2", 6.0), ("zero3", 5.0), ("zero3_offload", 0.5)],
)
def test_every_strategy_is_looked_at(
    strategy: str, gigabytes: float, model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1,000,000,000 parameters on 4 GPUs; 4 bytes in fsdp2, 18 divided by 4 and a buffer in zero3, ..."""
    model.weight = nn.Parameter(torch.empty(100_000, 10_000, device="meta"))
    world = World(size=4, device=torch.device("cuda", 0))
    machine_with(gigabytes * 1000 + 10, monkeypatch)
    assert check(world, strategy, model, training=True) is None
    machine_with(gigabytes * 1000 - 10, monkeypatch)
    with pytest.raises(ConfigError, match=f"need {gigabytes:.1f} GB for weights, gradients and moments, this GPU has"):
        check(world, strategy, model, training=True)


@pytest.mark.parametrize(("limit", "least"), [("1000000\n", 1_000_000), ("max\n", 2_000_000)])
def test_a_container_has_what_it_may_use(
    limit: str, least: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory.max").write_text(limit)
    monkeypatch.setattr(memory, "_LIMITS", (tmp_path / "memory.max", tmp_path / "none"))
    found = memory.memory_of(torch.device("cpu"))
    assert found == least if limit != "max\n" else found > least
