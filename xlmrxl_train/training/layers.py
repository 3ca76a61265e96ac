"""How layers compute in training beside how they do it else: compiled, or with float8 factors."""

from torch import nn

from xlmrxl_train.config import TrainConfig
from xlmrxl_train.model import XLMRobertaXLLayer
from xlmrxl_train.model.quantization import check_installed


def prepare_layers(model: nn.Module, config: TrainConfig) -> None:
    """Do to each layer of a model, perhaps on the meta device, what the configuration says.

    Raises:
        ConfigError: torchao is missing.
    """
    layers = [module for module in model.modules() if isinstance(module, XLMRobertaXLLayer)]
    if config.matmul == "fp8":
        check_installed("train.matmul=fp8 needs")
        from xlmrxl_train.model.float8 import use_float8

        for layer in layers:
            use_float8(layer)
    if config.compile:
        for layer in layers:
            layer.compile_for_training()
