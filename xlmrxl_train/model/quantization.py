"""Weight-only quantization: which weights of a model become integers, and how a folder of them is written and read.

The matrices of the layers are rounded, heads never; the word embedding, and the vocabulary tied to it, only if asked
for. Everything else is bfloat16.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import lru_cache, partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from xlmrxl_train.errors import CheckpointError, ConfigError
from xlmrxl_train.model.encoder import XLMRobertaXLLayer
from xlmrxl_train.model.heads import LMHead
from xlmrxl_train.model.heap import release_free_memory
from xlmrxl_train.model.layers import Embedding
from xlmrxl_train.model.quantized_weights import (
    INT4_PARTS,
    INT8_PARTS,
    IntegerWeight,
    QuantizedEmbedding,
    QuantizedProjection,
    is_quantized,
)
from xlmrxl_train.model.weights import CheckpointReader
from xlmrxl_train.model.writing import TensorEntry

METHOD = "xlmrxl_train"
"""What config.json calls this form, so that other libraries refuse it instead of reading it wrongly."""
WORD_EMBEDDING = "embeddings.word_embeddings.weight"
_CHOICES = {"weights": ("int8", "int4"), "embeddings": ("bf16", "int8")}
_GROUP_SIZES = (32, 64, 128)
MATRICES_BETWEEN = 24  # of XL: after every fourth layer; without it a third of a gigabyte and more stays with the heap


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizationConfig:
    """How weights are rounded.

    Raises:
        ConfigError: A value is none of those that there are.
    """

    weights: str = "int8"
    """int8: 256 levels, a scale per row. int4: 16 levels, a scale and a zero point per group of a row."""
    group_size: int = 128
    """Input features of a group of int4: 32, 64 or 128."""
    embeddings: str = "bf16"
    """bf16, or int8 with a scale per row."""

    def __post_init__(self) -> None:
        faults = [
            f"{name} must be {' | '.join(choices)}, got {getattr(self, name)!r}."
            for name, choices in _CHOICES.items()
            if getattr(self, name) not in choices
        ]
        if type(self.group_size) is not int or self.group_size not in _GROUP_SIZES:
            faults.append(f"group_size must be {' | '.join(map(str, _GROUP_SIZES))}, got {self.group_size!r}.")
        if faults:
            raise ConfigError(*faults)

    def to_dict(self) -> dict[str, object]:
        """Return what config.json says."""
        return {"quant_method": METHOD, **asdict(self)}

    @classmethod
    def from_dict(cls, values: object, path: Path) -> Self:
        """Read what config.json says.

        Raises:
            CheckpointError: It is another library's, or damaged.
        """
        known = {entry.name for entry in fields(cls)}
        if not isinstance(values, Mapping) or values.get("quant_method") != METHOD:
            method = values.get("quant_method") if isinstance(values, Mapping) else values
            raise CheckpointError(
                f"{path}: quantization_config must be of quant_method {METHOD}, got {str(method)[:80]}. "
                "Take the model that was quantized, and pass quantization_config=."
            )
        try:
            return cls(**{key: value for key, value in values.items() if key in known})
        except ConfigError as error:
            raise CheckpointError(f"{path}: quantization_config: {error} Restore the file.") from None


def check_installed(who_needs: str = "Quantized weights need") -> None:
    """Make sure that torchao is there, and import it.

    Raises:
        ConfigError: It is not.
    """
    if find_spec("torchao") is None:
        raise ConfigError(f"{who_needs} the package torchao, found none. Run pip install 'xlmrxl_train[quantize]'.")
    with quietly():
        import_module("torchao.quantization")


@contextmanager
def quietly() -> Iterator[None]:
    """Import torchao, or what imports it, without what it says of kernels for other machines."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def kinds_of(model: nn.Module, config: QuantizationConfig) -> dict[str, str]:
    """Return the parameters that become integers, and of which kind.

    Raises:
        ConfigError: The shape of a matrix does not allow it.
    """
    kinds = {
        f"{name}.{inner}.weight": config.weights
        for name, layer in model.named_modules()
        if isinstance(layer, XLMRobertaXLLayer)
        for inner, module in layer.named_modules()
        if isinstance(module, nn.Linear)
    }
    for name, kind in kinds.items():
        num_rows, num_columns = model.get_parameter(name).shape
        if kind == "int4" and (num_rows % 16 or num_columns % config.group_size):
            raise ConfigError(
                f"int4 weights must have a multiple of 16 rows and of group_size={config.group_size} columns, got "
                f"{num_rows} x {num_columns} in {name}. Choose another group_size, or int8."
            )
    if config.embeddings == "int8":
        kinds |= {name: "int8" for name, _ in model.named_parameters() if name.endswith(WORD_EMBEDDING)}
    return kinds


def quantized_entries(model: nn.Module, config: QuantizationConfig, read: Callable[[str], Tensor]) -> list[TensorEntry]:
    """Return what a folder of quantized weights holds, rounded when its turn comes, one matrix at a time.

    Args:
        model: Its names and shapes count; it may be on the meta device.
        config: How weights are rounded.
        read: Returns a parameter: as it was trained, or already rounded.
    """
    kinds = kinds_of(model, config)

    @lru_cache(maxsize=1)  # the parts of a weight follow each other
    def rounded(name: str) -> dict[str, Tensor]:
        weight = read(name)
        if is_quantized(weight):
            return IntegerWeight.from_torchao(weight).parts
        return IntegerWeight.rounded(weight, kinds[name], config.group_size).parts

    def part(name: str, suffix: str) -> Tensor:
        return rounded(name)[suffix]

    entries = []
    for name, parameter in model.named_parameters():
        shape = tuple(parameter.shape)
        if name not in kinds:
            read_plain = partial(_as_bfloat16, read, name)
            entries.append(TensorEntry(name=name, dtype=torch.bfloat16, shape=shape, read=read_plain))
            continue
        for suffix, (dtype, size) in _layout(kinds[name], shape, config.group_size).items():
            entries.append(
                TensorEntry(name=f"{name}.{suffix}", dtype=dtype, shape=size, read=partial(part, name, suffix))
            )
    return entries


def _as_bfloat16(read: Callable[[str], Tensor], name: str) -> Tensor:
    return read(name).to(torch.bfloat16)


def _layout(kind: str, shape: tuple[int, ...], group_size: int) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Return dtype and shape of each part of a weight."""
    num_rows, num_columns = shape
    if kind == "int8":
        return {"qdata": (torch.int8, shape), "scale": (torch.float32, (num_rows, 1))}
    groups = (num_rows, num_columns // group_size)
    return {
        "qdata": (torch.uint8, (num_rows, num_columns // 2)),
        "scale": (torch.bfloat16, groups),
        "zero_point": (torch.bfloat16, groups),
    }


class QuantizedReader:
    """A folder of quantized weights, under the names and with the shapes of the weights that they were."""

    def __init__(self, reader: CheckpointReader) -> None:
        self._reader = reader
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._parts: dict[str, tuple[str, ...]] = {}
        for name, shape in reader.shapes.items():
            weight, _, suffix = name.rpartition(".")
            if suffix not in INT4_PARTS:
                self.shapes[name] = shape
            elif suffix == "qdata":
                int4 = f"{weight}.zero_point" in reader.shapes
                self._parts[weight] = INT4_PARTS if int4 else INT8_PARTS
                self.shapes[weight] = (shape[0], shape[1] * 2) if int4 and len(shape) == 2 else shape

    def integers(self, name: str, kind: str, group_size: int) -> IntegerWeight:
        """Return a quantized weight, mapped from the file.

        Raises:
            CheckpointError: A part is missing, or of another shape or dtype.
        """
        layout = _layout(kind, self.shapes[name], group_size)
        parts = {}
        for suffix, (dtype, shape) in layout.items():
            full = f"{name}.{suffix}"
            found = self._reader.read(full) if full in self._reader.shapes else None
            if found is None or found.dtype != dtype or tuple(found.shape) != shape:
                got = "none" if found is None else f"{str(found.dtype)[6:]} {tuple(found.shape)}"
                raise CheckpointError(
                    f"{self.file_of(name)} must hold {full} as {str(dtype)[6:]} {shape}, got {got}. "
                    "Quantize the model again, or restore the folder."
                )
            parts[suffix] = found
        return IntegerWeight(**parts)

    def read(self, name: str) -> Tensor:
        """Return a tensor that is not quantized."""
        return self._reader.read(name)

    def read_part(self, name: str, start: int, count: int) -> Tensor:
        """Return some elements of one that is not quantized."""
        return self._reader.read_part(name, start, count)

    def file_of(self, name: str) -> Path:
        """Return the file that holds the tensor, or its integers."""
        return self._reader.file_of(f"{name}.qdata" if name in self._parts else name)


@torch.no_grad()
def load_quantized(
    model: nn.Module, reader: CheckpointReader, stored: Mapping[str, str], config: QuantizationConfig,
    device: torch.device,
) -> None:  # fmt: skip
    """Fill a model on the meta device with integers, and with bfloat16 where there are none; one matrix at a time.

    Args:
        model: Its parameters are replaced, and its embedding if that is quantized. Nothing in it can be trained.
        reader: A `QuantizedReader`; or another one, whose weights are then rounded.
        stored: Parameter -> its name in the checkpoint. Others stay undefined.
        config: How weights are rounded.
        device: Of the parameters.
    """
    for number, (name, kind) in enumerate(kinds_of(model, config).items()):
        if isinstance(reader, QuantizedReader):
            weight = reader.integers(stored[name], kind, config.group_size)
        else:
            weight = IntegerWeight.rounded(reader.read(stored[name]), kind, config.group_size)
        _set(model, name, weight.to_torchao(device))
        if number % MATRICES_BETWEEN == 0:
            release_free_memory()
    for name, parameter in list(model.named_parameters()):
        if not is_quantized(parameter):
            value = torch.empty(parameter.shape, dtype=torch.bfloat16, device=device)
            _set(model, name, value.copy_(reader.read(stored[name])) if name in stored else value)
    if config.embeddings == "int8":
        _replace_embedding(model)


def _set(model: nn.Module, name: str, value: Tensor) -> None:
    owner, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(owner), attribute, nn.Parameter(value, requires_grad=False))


def _replace_embedding(model: nn.Module) -> None:
    """Put modules that read integers where the word embedding and the vocabulary tied to it are."""
    tied = getattr(getattr(model, "config", None), "tie_word_embeddings", False)
    for module in list(model.modules()):
        table = getattr(module, "word_embeddings", None)
        if isinstance(table, Embedding):
            module.word_embeddings = QuantizedEmbedding(table.weight, table.padding_idx)
        if isinstance(module, LMHead) and tied:
            with torch.device("meta"):
                projection = QuantizedProjection(module.decoder.in_features, module.decoder.out_features)
            projection.bias = module.bias
            module.decoder = projection  # its weight is tied by the model, when all is filled
