"""What a device and its software must have for some settings, looked for before anything is loaded."""

import os
import shutil
from importlib.util import find_spec

import torch

from xlmrxl_train.config import Config
from xlmrxl_train.errors import ConfigError

FLOAT8 = (8, 9)  # compute capability: Ada, Hopper and later


def check_capabilities(config: Config, device: torch.device) -> None:
    """Make sure that the device can do what is asked of it.

    Raises:
        ConfigError: There is no compiler for it, or it has no float8 products.
    """
    if config.train.compile:
        check_compiler(device, "train.compile=true", "set train.compile=false")
    if config.optimizer.name == "adamw_8bit":
        check_compiler(device, "optimizer.name=adamw_8bit", "choose optimizer=adamw")
    if config.train.matmul == "fp8":
        found = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
        if found is None or found < FLOAT8:
            got = device.type if found is None else f"{found[0]}.{found[1]}"
            raise ConfigError(
                f"train.matmul=fp8 needs a GPU of compute capability 8.9 or more, got {got}. Set train.matmul=bf16."
            )


def check_compiler(device: torch.device, wish: str, instead: str) -> None:
    """Make sure that torch.compile has what it needs beside torch.

    Raises:
        ConfigError: It has not.
    """
    if device.type == "cuda":
        needs, there = "the package triton", find_spec("triton") is not None
    else:
        compiler = os.environ.get("CXX", "g++")
        needs, there = f"a C++ compiler, {compiler} ($CXX)", shutil.which(compiler) is not None
    if not there:
        raise ConfigError(f"{wish} needs {needs}, found none. Install it, or {instead}.")
