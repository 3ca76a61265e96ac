"""Whether a model fits into memory, known before any is taken."""

import os
from pathlib import Path

import torch
from torch import nn

from xlmrxl_train.config import StrategyConfig
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.launcher import launched
from xlmrxl_train.parallel.world import World

WEIGHT_BYTES = 4  # float32
TRAINING_BYTES = 12  # gradient and AdamW's two moments, float32
WHOLE_COPIES = ("auto", "single", "ddp")  # the strategies in which every process holds the whole model
# Where a container sees its own limit: cgroups of version 2 and 1.
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def check_memory(world: World, strategy: StrategyConfig, model: nn.Module, *, training: bool) -> str | None:
    """Refuse a model that cannot be loaded; return a warning where training it cannot be expected to fit.

    Args:
        world: Its device is where the model will be; ranks of one machine share the memory beside GPUs.
        strategy: Where it divides the weights, nothing is known here, and nothing said.
        model: As it will be, on any device; "meta" takes no memory.
        training: Whether gradients and moments will be needed, and not the weights alone.

    Raises:
        ConfigError: The weights alone are larger than the memory.
    """
    if strategy.name not in WHOLE_COPIES:
        return None
    parameters = list(model.parameters())
    total = sum(parameter.numel() for parameter in parameters)
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad) if training else 0
    copies = launched().local_size if world.device.type == "cpu" else 1
    memory, place = memory_of(world.device), "GPU" if world.device.type == "cuda" else "machine"
    ranks = f" in each of {copies} processes" if copies > 1 else ""
    weights = total * WEIGHT_BYTES
    if weights * copies > memory:
        raise ConfigError(
            f"model must fit into memory: {total:,} parameters need {_gigabytes(weights)} for weights{ranks}, "
            f"this {place} has {_gigabytes(memory)}. Choose a smaller model or a larger {place}."
        )
    whole = weights + trained * TRAINING_BYTES
    if whole * copies > memory:
        return (
            f"warning: training {trained:,} parameters needs {_gigabytes(whole)} for weights, gradients and moments"
            f"{ranks}, this {place} has {_gigabytes(memory)}"
        )
    return None


def memory_of(device: torch.device) -> int:
    """Return the bytes of a GPU, or those that this machine has and lets this process use."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    limits = [path.read_text(encoding="ascii").strip() for path in _LIMITS if path.is_file()]
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([installed, *(int(limit) for limit in limits if limit.isdecimal())])  # "max": no limit


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"
