"""What DeepSpeed needs beside itself, found out before anything is loaded."""

import logging
import os
import warnings
from typing import Any

from torch import nn
from torch.utils import cpp_extension

from xlmrxl_train.config import Zero3Config, Zero3NvmeConfig, ZeroConfig
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.parallel.operations import compile_operation
from xlmrxl_train.parallel.swap_folder import SwapFolder
from xlmrxl_train.parallel.world import World
from xlmrxl_train.parallel.zero_settings import check_passed_through


def check_needs(world: World, config: ZeroConfig, model: nn.Module) -> None:
    """Make sure that DeepSpeed can do what is asked of it, and compile what it needs.

    Args:
        world: Its device and number of ranks.
        config: The strategy.
        model: As it will be, on any device; "meta" takes no memory.

    Raises:
        ConfigError: Something is missing, or is not for this device or number of ranks.
    """
    import_deepspeed(world)
    check_passed_through(config.deepspeed)
    if isinstance(config, Zero3Config):
        check_zero_plus_plus(world, config)
    if isinstance(config, Zero3NvmeConfig):
        require_aio(world)
        # At most: some rows of the vocabulary may stay frozen, which is known when the training set is.
        trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        SwapFolder.take(config, world, -(-trained // world.size))


def import_deepspeed(world: World) -> Any:
    """Import DeepSpeed for the world's device and join it to the process group.

    Raises:
        ConfigError: It is not installed.
    """
    os.environ.setdefault("DS_ACCELERATOR", world.device.type)
    os.environ.setdefault("LOCAL_RANK", str(world.local_rank))
    try:
        import deepspeed
    except ImportError as error:
        raise ConfigError(
            f"strategy=zero* needs the package deepspeed, found none that can be imported ({error}). "
            "Install it: pip install deepspeed, or use strategy=fsdp2, which needs none."
        ) from None
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)  # it warns of every optimizer that is not its own
    warnings.filterwarnings("ignore", message=r"`torch\.distributed\.\w+` is deprecated", category=FutureWarning)
    if world.device.type == "cpu":
        # Else it compiles an operation for inference on CPUs: a compiler is needed, and a run that was killed while
        # compiling leaves a lock behind on which every later run waits without end.
        deepspeed.ops.__compatible_ops__ = {}
    deepspeed.init_distributed(dist_backend="nccl" if world.device.type == "cuda" else "gloo", verbose=False)
    world.before_leaving(deepspeed.comm.destroy_process_group)  # it forgets its groups, which a next world has anew
    return deepspeed


def check_zero_plus_plus(world: World, config: Zero3Config) -> None:
    """Make sure that ZeRO++ is possible with these ranks on this device.

    Raises:
        ConfigError: It is not.
    """
    faults = []
    if world.size % config.hierarchical_size:
        faults.append(
            f"strategy.hierarchical_size must divide the number of ranks, {world.size}, "
            f"got {config.hierarchical_size}. Use the number of GPUs of a machine."
        )
    faults += [
        f"strategy.{name} must be false on {world.device.type}, got true: DeepSpeed quantizes in CUDA alone. "
        "Leave it out, or use GPUs."
        for name in ("quantized_weights", "quantized_gradients")
        if getattr(config, name) and world.device.type != "cuda"
    ]
    if faults:
        raise ConfigError(*faults)


def can_build_aio() -> bool:
    """Return whether this machine has what DeepSpeed's operation for disks is built from; nothing is built."""
    from deepspeed.ops.op_builder import AsyncIOBuilder

    return bool(AsyncIOBuilder().is_compatible(verbose=False))


def require_aio(world: World) -> None:
    """Make sure that DeepSpeed can write to the disk.

    Raises:
        ConfigError: Its operation cannot be built.
    """
    from deepspeed.ops.op_builder import AsyncIOBuilder

    instead = "or use strategy=zero3_offload"
    if not can_build_aio():
        raise ConfigError(
            "strategy=zero3_nvme needs DeepSpeed's operation async_io, which cannot be built here. "
            f"Install libaio-dev and g++, {instead}."
        )
    if world.device.type == "cuda" and cpp_extension.CUDA_HOME is None:
        raise ConfigError(
            "strategy=zero3_nvme needs CUDA's toolkit to compile DeepSpeed's operation async_io, found none. "
            f"Install it and set $CUDA_HOME, {instead}."
        )
    compile_operation(AsyncIOBuilder(), also="pin_memory", instead=instead)
