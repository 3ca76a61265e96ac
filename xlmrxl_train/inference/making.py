"""`pipeline`: a task and a model become a pipeline, called as transformers' function of that name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.inference.base import Pipeline
from xlmrxl_train.inference.fill_mask import FillMask
from xlmrxl_train.inference.multiple_choice import MultipleChoice
from xlmrxl_train.inference.opening import device_of, dtype_of, load_model, load_tokenizer, settle
from xlmrxl_train.inference.question_answering import QuestionAnswering
from xlmrxl_train.inference.text_classification import TextClassification
from xlmrxl_train.inference.text_generation import TextGeneration
from xlmrxl_train.inference.token_classification import TokenClassification
from xlmrxl_train.inference.vectors import FeatureExtraction, SentenceEmbeddings
from xlmrxl_train.model import PreTrained
from xlmrxl_train.spelling import did_you_mean

_KINDS: tuple[type[Pipeline], ...] = (
    FillMask,
    TextClassification,
    TokenClassification,
    QuestionAnswering,
    MultipleChoice,
    FeatureExtraction,
    SentenceEmbeddings,
    TextGeneration,
)
PIPELINES = {kind.task: kind for kind in _KINDS}
_OTHER_NAMES = {"ner": "token-classification", "sentiment-analysis": "text-classification"}


def pipeline(
    task: str,
    model: str | Path | PreTrained,
    *,
    tokenizer: Tokenizer | str | Path | None = None,
    dtype: torch.dtype | str | None = None,
    torch_dtype: torch.dtype | str | None = None,
    device: torch.device | str | int | None = None,
    device_map: str | Mapping[str, int | str] | None = None,
    revision: str | None = None,
    **options: Any,
) -> Pipeline:
    """Return what answers inputs of a task with a model.

    Args:
        task: One of `PIPELINES`.
        model: A run folder, a folder, an id on the Hub, or a model of the task's class.
        tokenizer: Itself or where it is; None: beside the model.
        dtype: Of the weights, also as a word; None: as in the file. bfloat16 is the one to use on a GPU.
        torch_dtype: The same under its older name.
        device: 0 or "cuda:0" for the first GPU, -1 or "cpu"; None: a GPU if there is one.
        device_map: "auto" spreads the layers over GPUs, host memory and disk; or which module goes where. Instead of
            device.
        revision: Commit or tag on the Hub.
        options: Of the task, such as top_k; each call may set others.

    Raises:
        ConfigError: An argument is wrong, or the model does not suit the task.
        CheckpointError: The model's files are damaged.
    """
    kind = find_pipeline(task)
    if isinstance(model, PreTrained):
        if any(value is not None for value in (dtype, torch_dtype, device, device_map, revision)):
            raise ConfigError(
                "dtype, device and revision must be left out with a model that is built already, got one of them. "
                "Give model.to(device, dtype)."
            )
        found = load_tokenizer(tokenizer, model, revision)
        return kind(settle(model), found, options=options)
    if device_map is not None and device is not None:
        raise ConfigError(f"device must be left out with device_map, which says it, got {device}. Give one of them.")
    place = None if device_map is not None else device_of(device)
    numbers = dtype_of(dtype if dtype is not None else torch_dtype)
    kind.options_class().changed(kind.task, options)  # before anything is loaded
    loaded = load_model(kind.model_class, model, dtype=numbers, device=place, revision=revision, device_map=device_map)
    return kind(settle(loaded), load_tokenizer(tokenizer, model, revision), own=True, options=options)


def find_pipeline(task: str) -> type[Pipeline]:
    """Return the pipeline of a task.

    Raises:
        ConfigError: There is none.
    """
    name = _OTHER_NAMES.get(task, task)
    if name not in PIPELINES:
        hint = did_you_mean(name, PIPELINES, "Choose one of them.")
        raise ConfigError(f"task must be {' | '.join(PIPELINES)}, got {task}. {hint}")
    return PIPELINES[name]
