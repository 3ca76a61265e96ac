"""A model as an ONNX file with the padded signature, compared with torch after it was written."""

import json
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import Dim

from xlmrxl_train.errors import CheckpointError, ConfigError
from xlmrxl_train.inference.export.padded_model import OUTPUTS, PaddedModel
from xlmrxl_train.inference.export.transformers_folder import copy_tokenizer
from xlmrxl_train.inference.model_folder import ModelFolder, check_not_quantized
from xlmrxl_train.model import PreTrained, XLMRobertaXLForMultipleChoice

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
MODEL_FILE = "model.onnx"
EXTERNAL_BYTES = 1_900_000_000
"""An ONNX file is a protobuf message, which cannot be longer than 2 GB: larger weights lie beside it."""
TOLERANCE = 1e-4
"""Of a number, or of the largest one of its kind where that is above 1; float32 differs by 1e-6 on small models."""
CHECKED_BATCHES, CHECKED_LENGTHS = (1, 3), (1, 7, 33)


def check_exportable(source: ModelFolder) -> None:
    """Refuse what cannot be exported before anything is read.

    Raises:
        ConfigError: A package is missing, the weights are quantized, or the model is a decoder.
    """
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise ConfigError(
            f"--to onnx needs the packages {', '.join(PACKAGES)}, found no {', '.join(missing)}. "
            "Run pip install 'xlmrxl_train[onnx]'."
        )
    check_not_quantized(source, "An ONNX file")
    if source.model_class not in OUTPUTS or source.config.is_decoder:
        raise ConfigError(
            f"--to onnx is for the encoder and its task heads, got {source.model_class.__name__}"
            f"{' with is_decoder=true' if source.config.is_decoder else ''}. Use --to transformers."
        )


def export_onnx(source: ModelFolder, target: Path) -> Iterator[str]:
    """Write model.onnx, config.json and the tokenizer, yielding a line about each comparison.

    Args:
        source: An encoder, with or without a head.
        target: Made if missing.

    Raises:
        ConfigError: As `check_exportable`.
        CheckpointError: The model cannot be read or written, or onnxruntime computes something else.
    """
    check_exportable(source)
    model = source.model_class.from_pretrained(source.path, dtype=torch.float32)
    size = sum(parameter.nbytes for parameter in model.parameters())
    path = target / MODEL_FILE
    try:
        target.mkdir(parents=True, exist_ok=True)
        write_onnx(model, path, external=size > EXTERNAL_BYTES)
        config = model.config.to_dict(model.architecture)
        (target / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise CheckpointError(
            f"{target} cannot be written: {error.strerror}. Check the path and the free space."
        ) from error
    copy_tokenizer(source, target)
    yield f"written: {path}" + (f", weights in {path.name}.data" if size > EXTERNAL_BYTES else "")
    worst = check_onnx(model, path)
    yield (
        f"checked with onnxruntime: batches of {' and '.join(map(str, CHECKED_BATCHES))}, lengths "
        f"{', '.join(map(str, CHECKED_LENGTHS))}; largest difference from torch {worst:.1e}"
    )


def write_onnx(model: PreTrained, path: Path, *, external: bool) -> None:
    """Trace a float32 model on the CPU with any batch size and length.

    Args:
        model: One of `OUTPUTS`, in evaluation mode.
        path: Of the file.
        external: Whether weights go into `<path>.data`.
    """
    padded = PaddedModel(model)
    input_ids, attention_mask = _batch(model, 2, 7)
    shape = {dim: Dim(name) for dim, name in enumerate(_dimensions(model))}
    with warnings.catch_warnings():  # torch's exporter warns of its own deprecations
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            padded,
            (input_ids, attention_mask),
            dynamo=True,
            dynamic_shapes={"input_ids": shape, "attention_mask": shape},
            input_names=["input_ids", "attention_mask"],
            output_names=list(padded.output_names),
            verbose=False,
        )
    assert program is not None
    program.save(path, external_data=external)


def _dimensions(model: PreTrained) -> tuple[str, ...]:
    choice = ("choice",) if isinstance(model, XLMRobertaXLForMultipleChoice) else ()
    return ("batch", *choice, "sequence")


def _batch(model: PreTrained, batch_size: int, length: int) -> tuple[Tensor, Tensor]:
    """Return random ids and a mask with rows of different lengths, the first one full, padding on the right."""
    config = model.config
    choices = (2,) if isinstance(model, XLMRobertaXLForMultipleChoice) else ()
    random = torch.Generator().manual_seed(1000 * batch_size + length)
    shape = (batch_size, *choices, length)
    input_ids = torch.randint(config.pad_token_id + 1, config.vocab_size, shape, generator=random)
    lengths = torch.randint(1, length + 1, shape[:-1], generator=random)
    lengths.view(-1)[0] = length
    attention_mask = (torch.arange(length) < lengths[..., None]).long()
    return input_ids.masked_fill(attention_mask == 0, config.pad_token_id), attention_mask


@torch.no_grad()
def check_onnx(model: PreTrained, path: Path) -> float:
    """Compare the file with the packed model on several batch sizes and lengths.

    Returns:
        The largest difference, relative to the largest number of its kind where that is above 1.

    Raises:
        CheckpointError: The file cannot be run, or a number differs.
    """
    import onnxruntime  # late: an optional package

    try:
        session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes, which share no public base
        raise CheckpointError(
            f"{path} must be read by onnxruntime, got {str(error).splitlines()[0][:160]}. Export again."
        ) from error
    worst, limit = 0.0, model.config.max_position_embeddings - model.config.pad_token_id - 1
    for batch_size in CHECKED_BATCHES:
        for length in (length for length in CHECKED_LENGTHS if length <= limit):
            input_ids, attention_mask = _batch(model, batch_size, length)
            expected = model(input_ids, attention_mask)
            feeds = {"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()}
            names = [output.name for output in session.get_outputs()]
            for name, got in zip(names, session.run(names, feeds), strict=True):
                gap = _gap(got, expected[name].numpy())
                if not gap <= TOLERANCE:
                    raise CheckpointError(
                        f"{path} must compute what torch does, but {name} differs by {gap:.1e} for a batch of "
                        f"{batch_size} and length {length}. Export again, with the versions in constraints.txt."
                    )
                worst = max(worst, gap)
    return worst


def _gap(got: np.ndarray, expected: np.ndarray) -> float:
    if got.shape != expected.shape:
        return float("inf")
    lowest = np.finfo(np.float32).min  # at padding: equal, or something is wrong
    if not np.array_equal(got == lowest, expected == lowest):
        return float("inf")
    real = expected != lowest
    scale = max(1.0, float(np.abs(expected, where=real, out=np.zeros_like(expected)).max()))
    return float(np.abs(got - expected).max()) / scale
