"""A machine that cannot compile says so before anything is loaded."""

import pytest
import torch

from xlmrxl_train.config import Config
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.training import compiler
from xlmrxl_train.training.compiler import check_compiler


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(compiler, "find_spec", lambda name: None)
    config = Config()
    check_compiler(config, torch.device("cpu"))  # nothing is compiled
    config.optimizer.name = "adamw_8bit"
    with pytest.raises(
        ConfigError,
        match=r"optimizer\.name=adamw_8bit needs a C\+\+ compiler, no-such-compiler \(\$CXX\), found none\. Inst"
        r"all it, or choose optimizer=adamw\.",
    ):
        check_compiler(config, torch.device("cpu"))
    config.train.compile = True
    with pytest.raises(
        ConfigError,
        match=r"train\.compile=true needs the package triton, found none\. Install it, or set train\.compile=false\.",
    ):
        check_compiler(config, torch.device("cuda"))
    monkeypatch.setenv("CXX", "true")
    check_compiler(config, torch.device("cpu"))
