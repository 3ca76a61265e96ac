"""What torch.compile needs beside torch, looked for before anything is loaded."""

import os
import shutil
from importlib.util import find_spec

import torch

from xlmrxl_train.config import Config
from xlmrxl_train.errors import ConfigError


def check_compiler(config: Config, device: torch.device) -> None:
    """Make sure that what is to be compiled can be.

    Raises:
        ConfigError: There is no compiler for the device.
    """
    if config.train.compile:
        wish, instead = "train.compile=true", "set train.compile=false"
    elif config.optimizer.name == "adamw_8bit":
        wish, instead = "optimizer.name=adamw_8bit", "choose optimizer=adamw"
    else:
        return
    if device.type == "cuda":
        needs, there = "the package triton", find_spec("triton") is not None
    else:
        compiler = os.environ.get("CXX", "g++")
        needs, there = f"a C++ compiler, {compiler} ($CXX)", shutil.which(compiler) is not None
    if not there:
        raise ConfigError(f"{wish} needs {needs}, found none. Install it, or {instead}.")
