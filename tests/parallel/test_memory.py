"""A model that memory cannot hold is refused before any is taken; a large one to train is warned about."""

from pathlib import Path

import pytest
import torch
from torch import nn

from xlmrxl_train.config import DDPConfig, StrategyConfig
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.parallel import World, check_memory, memory

GPU = World(device=torch.device("cuda", 0))


@pytest.fixture
def model() -> nn.Module:
    """A model of 1,000,000 parameters: 4 MB of weights, 16 MB in training."""
    return nn.Linear(1000, 1000, bias=False, device="meta")


def machine_with(megabytes: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "memory_of", lambda device: int(megabytes * 1e6))


def test_weights_that_do_not_fit_are_refused(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    model.weight = nn.Parameter(torch.empty(100_000, 100_000, device="meta"))
    machine_with(24_000, monkeypatch)
    for world, place in ((World(), "machine"), (GPU, "GPU")):
        with pytest.raises(ConfigError) as caught:
            check_memory(world, DDPConfig(), model, training=False)
        assert str(caught.value) == (
            "model must fit into memory: 10,000,000,000 parameters need 40.0 GB for weights, "
            f"this {place} has 24.0 GB. Choose a smaller model or a larger {place}."
        )


def test_ranks_of_a_machine_share_its_memory(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    machine_with(7, monkeypatch)
    assert check_memory(World(), StrategyConfig(), model, training=False) is None
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"need 0\.0 GB for weights in each of 2 processes, this machine has"):
        check_memory(World(), StrategyConfig(), model, training=False)
    assert check_memory(GPU, StrategyConfig(), model, training=False) is None  # each has a GPU of its own


def test_what_training_adds_is_warned_about(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    model.weight = nn.Parameter(torch.empty(100_000, 10_000, device="meta"))
    machine_with(15_000, monkeypatch)
    assert check_memory(World(), StrategyConfig(), model, training=False) is None
    assert check_memory(World(), StrategyConfig(), model, training=True) == (
        "warning: training 1,000,000,000 parameters needs 16.0 GB for weights, gradients and moments, "
        "this machine has 15.0 GB"
    )
    model.weight.requires_grad_(False)
    assert check_memory(World(), StrategyConfig(), model, training=True) is None


def test_nothing_is_said_where_weights_are_divided(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    machine_with(1, monkeypatch)
    assert check_memory(World(), StrategyConfig(name="divided"), model, training=True) is None


@pytest.mark.parametrize(("limit", "least"), [("1000000\n", 1_000_000), ("max\n", 2_000_000)])
def test_a_container_has_what_it_may_use(
    limit: str, least: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory.max").write_text(limit)
    monkeypatch.setattr(memory, "_LIMITS", (tmp_path / "memory.max", tmp_path / "none"))
    found = memory.memory_of(torch.device("cpu"))
    assert found == least if limit != "max\n" else found > least
