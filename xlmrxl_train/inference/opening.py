"""A name becomes a model and its tokenizer, in a dtype and on a device, for nothing but forward passes."""

from collections.abc import Mapping
from pathlib import Path

import torch

from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.hub import resolve_model
from xlmrxl_train.model import PreTrained, XLMRobertaXLModel

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    model_class: type[PreTrained],
    path_or_id: str | Path,
    *,
    dtype: torch.dtype | None,
    device: torch.device | None,
    revision: str | None,
    device_map: str | Mapping[str, int | str] | None = None,
) -> PreTrained:
    """Read a model whose every weight is trained.

    Args:
        model_class: The public class.
        path_or_id: A run folder, a folder, or an id on the Hub.
        dtype: Of the weights; None keeps the file's.
        device: Where to; None with a device_map.
        revision: Of a repository on the Hub.
        device_map: As `PreTrained.from_pretrained`.

    Raises:
        ConfigError: There is no such model, or it lacks the head that is needed.
        CheckpointError: Its files are damaged.
    """
    folder = resolve_model(str(path_or_id), revision, key="model")
    report = model_class.from_pretrained(folder, device="meta").load_report  # nothing is read yet
    if report is not None and report.new:
        raise ConfigError(
            f"model must have a trained head for {model_class.__name__}, got {path_or_id}, which lacks "
            f"{report.new[0]}. Fine-tune it first, or choose another task."
        )
    return model_class.from_pretrained(folder, dtype=dtype, device=device, device_map=device_map)


def settle(model: PreTrained) -> PreTrained:
    """Return the model ready for forward passes: no dropout, no gradients, a residual stream in float32."""
    for module in model.modules():
        if isinstance(module, XLMRobertaXLModel):
            module.residual_dtype = torch.float32  # half precision sums lose digits, and float16 ones overflow
    return model.eval().requires_grad_(False)


def load_tokenizer(tokenizer: Tokenizer | str | Path | None, model: object, revision: str | None) -> Tokenizer:
    """Return the tokenizer itself, the one at a place, or the one beside the model.

    Raises:
        ConfigError: It cannot be read, or nothing says where it is.
    """
    if isinstance(tokenizer, Tokenizer):
        return tokenizer
    if tokenizer is not None:
        return Tokenizer.from_path(tokenizer, key="tokenizer")
    if isinstance(model, str | Path):
        return Tokenizer.from_path(model, revision, key="model")
    raise ConfigError("tokenizer must be given with a model that is built already, got None. Pass tokenizer=.")


def dtype_of(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """Return the dtype that a name means; None: that of the file.

    Raises:
        ConfigError: It is none that a model can have.
    """
    found = _DTYPES.get(dtype.removeprefix("torch."), dtype) if isinstance(dtype, str) else dtype
    if found is None or found == "auto":
        return None
    if isinstance(found, torch.dtype) and found in _DTYPES.values():
        return found
    raise ConfigError(f"dtype must be {' | '.join(_DTYPES)} or auto, got {dtype}. Use bfloat16.")


def device_of(device: torch.device | str | int | None) -> torch.device:
    """Return the device that a number or name means: 0 is cuda:0, -1 the CPU; None: a GPU where there is one.

    Raises:
        ConfigError: There is no such device.
    """
    count = torch.cuda.device_count()
    if device is None:
        return torch.device("cuda", 0) if count else torch.device("cpu")
    name = str(device)
    if name.removeprefix("-").isdecimal():
        name = "cpu" if name.startswith("-") else f"cuda:{name}"
    try:
        found = torch.device(name)
    except RuntimeError:
        found = None
    if found is not None and (found.type == "cpu" or (found.type == "cuda" and (found.index or 0) < count)):
        return found
    there = f"GPUs 0 to {count - 1}" if count else "no GPU"
    raise ConfigError(f"device must be a number of a GPU, cuda:<number> or cpu, got {device}; here is {there}. "
                      "Use device=-1 for the CPU.")  # fmt: skip
