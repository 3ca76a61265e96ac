"""Adapters on the packed encoder, by peft: put in place before the model has memory, written in peft's own format."""

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xlmrxl_train.config import DoraTuningConfig, LoraTuningConfig, RsloraTuningConfig
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.model import PreTrained
from xlmrxl_train.model.adapted_weights import ADAPTER_WEIGHTS, BASE_WEIGHTS, PREFIX
from xlmrxl_train.model.heap import release_free_memory
from xlmrxl_train.model.layers import Dropout
from xlmrxl_train.model.quantization import MATRICES_BETWEEN, check_installed, quietly
from xlmrxl_train.model.rounded_linear import RoundedLinear, rounded, unrounded
from xlmrxl_train.model.source import NewParameter, ParameterSource
from xlmrxl_train.model.writing import TensorEntry, unwritable, write_safetensors
from xlmrxl_train.progress import progress
from xlmrxl_train.training.tuning import learning_heads

_NAME = "default"  # peft's of an adapter
_MODULES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
}
_TASK_TYPES = {
    "XLMRobertaXLForSequenceClassification": "SEQ_CLS",
    "XLMRobertaXLForTokenClassification": "TOKEN_CLS",
    "XLMRobertaXLForQuestionAnswering": "QUESTION_ANS",
}
"""What peft calls the tasks that it has a class for."""


def add_adapters(model: PreTrained, source: ParameterSource, tuning: LoraTuningConfig) -> ParameterSource:
    """Put adapters on the matrices of a model on the meta device; return where its values come from since.

    The public class and its forward stay; only linear layers are replaced. Parameters get other names:
    query.weight is query.base_layer.weight, beside query.lora_A.default.weight and query.lora_B.default.weight.

    Raises:
        ConfigError: peft or torchao is missing.
    """
    config = adapter_config(tuning)
    from peft import inject_adapter_in_model

    inject_adapter_in_model(config, model, low_cpu_mem_usage=True)
    for layer in _adapted(model).values():
        # Products of our layers get what they read in their dtype; DoRA computes lengths of rows, in float32.
        layer.cast_input_dtype_enabled = isinstance(tuning, DoraTuningConfig)
        if tuning.dropout:
            layer.lora_dropout[_NAME] = Dropout(tuning.dropout)
        if tuning.weights is not None:
            layer.base_layer = RoundedLinear(layer.base_layer, tuning.weights)
    return AdaptedSource(model, source, tuning.weights)


def adapter_config(tuning: LoraTuningConfig) -> Any:
    """Return peft's configuration, without a head: peft would put a second one beside it.

    Raises:
        ConfigError: peft is missing, or torchao where weights are to be rounded.
    """
    if find_spec("peft") is None:
        raise ConfigError(
            f"tuning={tuning.name} needs the package peft, found none. Run pip install 'xlmrxl_train[adapters]'."
        )
    if tuning.weights is not None:
        check_installed()
    with quietly():
        from peft import LoraConfig

    targets = "|".join(_MODULES[name].replace(".", r"\.") for name in tuning.targets)
    return LoraConfig(
        r=tuning.rank,
        lora_alpha=tuning.alpha,
        lora_dropout=tuning.dropout,
        use_dora=isinstance(tuning, DoraTuningConfig),
        use_rslora=isinstance(tuning, RsloraTuningConfig),
        target_modules=rf"(.*\.)?encoder\.layer\.\d+\.({targets})",  # "all-linear" would take the head as well
    )


def _adapted(model: nn.Module) -> dict[str, Any]:
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


class AdaptedSource(ParameterSource):
    """The values of a model that has adapters: its base's, and new ones that change nothing yet."""

    def __init__(self, model: nn.Module, base: ParameterSource, weights: str | None) -> None:
        """Describe every parameter of `model` as it is now.

        Args:
            model: Its shapes count, not its memory.
            base: Of the same model before.
            weights: How the matrices below adapters are rounded; None: not.
        """
        names = {name: name.replace(".base_layer.", ".") for name, _ in model.named_parameters()}
        stored = {name: base.stored[before] for name, before in names.items() if before in base.stored}
        super().__init__(model, base.std, base.seed, base.reader, stored, base.report)
        self.base, self.weights = base, weights
        for name, new in self.new.items():
            if ".lora_A." in name:  # as nn.Linear begins: kaiming_uniform_ with a = sqrt(5)
                self.new[name] = replace(new, std=new.shape[1] ** -0.5, uniform=True)
            elif ".lora_B." in name:
                self.new[name] = NewParameter(shape=new.shape, mean=0.0, std=0.0)

    def values(self, name: str, start: int, count: int) -> Tensor:
        """Return elements [start, start + count) of a flattened parameter; a magnitude is the length of the rows."""
        layer, magnitude, _ = name.partition(".lora_magnitude_vector.")
        if not magnitude:
            return super().values(name, start, count)
        matrix = self.matrix(layer)
        if self.weights is not None:
            matrix = unrounded(rounded(matrix, self.weights, matrix.device))
        lengths_N: Tensor = torch.linalg.norm(matrix.float(), dim=1)
        return lengths_N[start : start + count]

    def matrix(self, layer: str) -> Tensor:
        """Return the matrix below the adapter of a layer, as its file has it, in memory of its own."""
        assert self.reader is not None
        name = f"{layer}.weight"
        shape = self.reader.shapes[self.base.stored[name]]
        return self.base.values(name, 0, prod(shape)).view(shape)


def fill_rounded(model: nn.Module, source: ParameterSource, device: torch.device) -> None:
    """Give a model the rounded matrices below its adapters, one at a time; every process holds all of them."""
    if not isinstance(source, AdaptedSource) or source.weights is None:
        return
    for number, (name, layer) in enumerate(_adapted(model).items()):
        layer.base_layer.fill(source.matrix(name), device)
        progress.move()
        if number % MATRICES_BETWEEN == 0:
            release_free_memory()


def write_adapter(
    folder: Path, model: PreTrained, entries: list[TensorEntry], tuning: LoraTuningConfig, *, base: str,
    revision: str | None,
) -> None:  # fmt: skip
    """Write a folder that peft reads, and `from_pretrained` here: adapters and head, float32.

    Args:
        folder: Made if missing.
        model: Whose adapters they are.
        entries: What was trained.
        tuning: How.
        base: Folder or Hub id of the weights below.
        revision: On the Hub.

    Raises:
        CheckpointError: The folder cannot be written.
    """
    config = adapter_config(tuning)
    config.modules_to_save, config.task_type = learning_heads(model), _TASK_TYPES.get(model.architecture)
    config.base_model_name_or_path, config.revision, config.inference_mode = base, revision, True
    metadata = {} if tuning.weights is None else {BASE_WEIGHTS: tuning.weights}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_safetensors(folder / ADAPTER_WEIGHTS, list(_renamed(entries)), **metadata)
        config.save_pretrained(folder)
    except OSError as error:
        raise unwritable(folder, error) from error
    model.write_config(folder, torch.float32)


def _renamed(entries: list[TensorEntry]) -> Iterator[TensorEntry]:
    """Give tensors the names that they have in peft's files."""
    for entry in entries:
        name = entry.name.replace(f".lora_magnitude_vector.{_NAME}.weight", ".lora_magnitude_vector")
        yield replace(entry, name=PREFIX + name.replace(f".{_NAME}.weight", ".weight"))
