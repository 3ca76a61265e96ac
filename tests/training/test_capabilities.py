"""A machine that cannot do what is asked of it says so before anything is loaded."""

import pytest
import torch

from xlmrxl_train.config import Config
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.training import capabilities
from xlmrxl_train.training.capabilities import check_capabilities

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(capabilities, "find_spec", lambda name: None)
    config = Config()
    check_capabilities(config, CPU)  # nothing is compiled
    config.optimizer.name = "adamw_8bit"
    with pytest.raises(ConfigError) as caught:
        check_capabilities(config, CPU)
    assert str(caught.value) == (
        "optimizer.name=adamw_8bit needs a C++ compiler, no-such-compiler ($CXX), found none. Install it, or choose "
        "optimizer=adamw."
    )
    config.train.compile = True
    with pytest.raises(ConfigError) as caught:
        check_capabilities(config, CUDA)
    assert str(caught.value) == (
        "train.compile=true needs the package triton, found none. Install it, or set train.compile=false."
    )
    monkeypatch.setenv("CXX", "true")
    check_capabilities(config, CPU)


@pytest.mark.parametrize(("device", "got"), [(CPU, "cpu"), (CUDA, "8.0")])
def test_without_float8(device: torch.device, got: str, monkeypatch: pytest.MonkeyPatch) -> None:
    capability = (8, 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    config = Config()
    config.train.matmul = "fp8"
    with pytest.raises(
        ConfigError,
        match=rf"train\.matmul=fp8 needs a GPU of compute capability 8\.9 or more, got {got}\. Set train\.matmul=bf16",
    ):
        check_capabilities(config, device)
    capability = (9, 0)
    check_capabilities(config, CUDA)
