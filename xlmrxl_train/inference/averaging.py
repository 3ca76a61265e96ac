"""Several models' weights averaged: seeds of one configuration, or checkpoints of one run.

Source: Wortsman et al. 2022, Model soups, arXiv 2203.05482, section 2 (the uniform soup).
"""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from xlmrxl_train.errors import ConfigError
from xlmrxl_train.hub import local_path
from xlmrxl_train.inference.export.transformers_folder import copy_tokenizer, entries_of
from xlmrxl_train.inference.model_folder import ModelFolder, check_not_quantized, open_model_folder
from xlmrxl_train.model.writing import TensorEntry
from xlmrxl_train.progress import progress

_MAY_DIFFER = ("class_weights", "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout",
               "transformers_version", "dtype", "torch_dtype", "use_cache")  # fmt: skip
PIECE = 1 << 24
"""Elements averaged at a time: with 30 models, the largest tensor needs no more than this of each."""


def find_models(words: Sequence[str]) -> list[ModelFolder]:
    """Return the models that folders, run folders and globs name, each once.

    Raises:
        ConfigError: A glob matches nothing, or there are fewer than two models.
        CheckpointError: A folder is none of a model.
    """
    found: dict[Path, ModelFolder] = {}
    for word in words:
        matches = _matches(word) if any(letter in word for letter in "*?[") else [word]
        if not matches:
            raise ConfigError(f"average needs model folders, got {word}, which matches nothing. Check the path.")
        for match in matches:
            folder = open_model_folder(match)
            found.setdefault(folder.path.resolve(), folder)
    if len(found) < 2:
        raise ConfigError(
            f"average needs at least two models, got {len(found)}. "
            "Write xlmrxl average runs/xnli/*/model --output soup/."
        )
    return list(found.values())


def _matches(pattern: str) -> list[str]:
    path = local_path(pattern, "average")
    try:
        return sorted(map(str, Path(path.anchor or ".").glob(str(path.relative_to(path.anchor)))))
    except ValueError as error:
        raise ConfigError(f"average needs model folders, got {pattern}: {error}. Write runs/xnli/*/model.") from None


def check_alike(parts: Sequence[ModelFolder]) -> None:
    """Make sure that an average of these models is one.

    Raises:
        ConfigError: Class, shape, labels or tokenizer differ, or weights are quantized; all faults are listed.
    """
    first, *others = parts
    for part in parts:
        check_not_quantized(part, "An average")
    faults = []
    wanted, vocabulary = _identity(first), _vocabulary(first)
    for part in others:
        found = _identity(part)
        for key in dict.fromkeys([*wanted, *found]):
            if wanted.get(key) != found.get(key):
                faults.append(
                    f"{key} must be the same in all models, got {str(wanted.get(key))[:80]} in {first.path} and "
                    f"{str(found.get(key))[:80]} in {part.path}. Average models of one shape and one task."
                )
        if _vocabulary(part) != vocabulary:
            faults.append(
                f"The tokenizer must be the same in all models, got another one in {part.path} than in {first.path}. "
                "Average models that number their tokens alike."
            )
    if faults:
        raise ConfigError(*faults)


def _identity(part: ModelFolder) -> dict[str, object]:
    values = part.config.to_dict(part.model_class.__name__)
    return {key: value for key, value in values.items() if key not in _MAY_DIFFER}


def _vocabulary(part: ModelFolder) -> str | None:
    files = [path for path in part.tokenizer_files if not path.name.endswith(("_config.json", "_map.json"))]
    return hashlib.sha256(files[0].read_bytes()).hexdigest() if files else None


def average(parts: Sequence[ModelFolder], target: Path) -> None:
    """Write the mean of the models' weights, summed in float64, in the dtype of the first; and its tokenizer.

    One tensor of the result, and a piece of each model's, are in memory at a time.

    Args:
        parts: As `check_alike` has found good.
        target: Made if missing.

    Raises:
        CheckpointError: Weights are missing, damaged or of another shape; or the folder cannot be written.
    """
    models = [entries_of(part) for part in parts]
    models[0][0].write_pretrained(target, mean_of([entries for _, entries in models]))
    copy_tokenizer(parts[0], target)


def mean_of(models: Sequence[Sequence[TensorEntry]]) -> list[TensorEntry]:
    """Return the mean of several models' weights, to be read when its turn comes, in the dtypes of the first."""
    by_name = [{entry.name: entry for entry in found} for found in models]
    return [
        TensorEntry(
            name=entry.name,
            dtype=entry.dtype,
            shape=entry.shape,
            read=partial(_mean, entry, [found[entry.name] for found in by_name]),
        )
        for entry in models[0]
    ]


def _mean(wanted: TensorEntry, entries: Sequence[TensorEntry]) -> Tensor:
    with progress.doing(f"averaging {wanted.name}"):
        result = torch.empty(wanted.shape, dtype=wanted.dtype)
        flat, sources = result.view(-1), [entry.read().reshape(-1) for entry in entries]
        for start in range(0, flat.numel(), PIECE):
            total = sources[0][start : start + PIECE].double()
            for source in sources[1:]:
                total += source[start : start + PIECE]
            flat[start : start + PIECE] = total / len(sources)
    return result
