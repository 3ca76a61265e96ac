"""Which rows of the word embedding a run trains: all, those that its training set contains, or none.

A row that no batch reads has no gradient, and without weight decay, which embeddings never have, AdamW does not move
it. So training has the same result where such rows are left out: to the bit, but for the norm of all gradients, which
is summed in another order and matters where it clips them.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from xlmrxl_train.config import Config
from xlmrxl_train.data.corpus import Corpus
from xlmrxl_train.errors import CheckpointError, ConfigError
from xlmrxl_train.model import PreTrained
from xlmrxl_train.model.active_embedding import ActiveEmbedding
from xlmrxl_train.model.embedding import XLMRobertaXLEmbeddings
from xlmrxl_train.model.layers import Embedding
from xlmrxl_train.model.source import ParameterSource
from xlmrxl_train.parallel.memory import TRAINING_BYTES
from xlmrxl_train.parallel.tensor_files import read_index, read_tensor
from xlmrxl_train.tasks import Task

TABLE, ROWS = "word_embeddings", "rows"


def check_embeddings(config: Config, task: Task) -> None:
    """Make sure that the rows of the training set can be trained alone, if that is asked for.

    Raises:
        ConfigError: They cannot.
    """
    if config.model.embeddings == "active" and (not task.trains or task.trains_all_words):
        reason = "every row learns from every target" if task.trains else "nothing is trained"
        raise ConfigError(
            f"model.embeddings must be auto, trainable or frozen for task={config.task.kind}, got active: {reason}. "
            "Leave it out."
        )


def freeze_embeddings(
    config: Config, task: Task, train: Corpus, model: PreTrained, source: ParameterSource
) -> str | None:
    """Freeze, in a model that has no memory yet, what `model.embeddings` says; return what people should know.

    Args:
        config: Of the run.
        task: Its task.
        train: Everything that it will be trained on.
        model: Its embeddings are changed in place.
        source: Of the model's values; it learns of new parameters.
    """
    num_rows = model.config.vocab_size
    if config.model.embeddings == "trainable" or config.tuning.name != "full":
        return None
    if config.model.embeddings == "frozen":
        for _, embeddings in _embeddings_of(model):
            embeddings.requires_grad_(False)
        return f"none of the {num_rows:,} rows is trained, nor are positions: model.embeddings=frozen"
    if task.trains_all_words:
        return f"all {num_rows:,} rows are trained: with task={config.task.kind} every row learns from every target"
    rows = _rows_read(task, train, num_rows)
    if len(rows) == num_rows:
        return f"all {num_rows:,} rows are trained: the training set contains every token"
    saved = train_rows(model, source, rows) * TRAINING_BYTES
    nearly = "nearly " if config.optimizer.name == "adamw_8bit" else ""  # whose blocks of moments other rows then share
    return (
        f"{len(rows):,} of {num_rows:,} rows are in the training set and trained, with {nearly}the result of "
        f"training all; saves {saved / 1e9:,.1f} GB of gradients and moments per copy of the model "
        f"({1 - len(rows) / num_rows:.0%})"
    )


def train_rows(model: PreTrained, source: ParameterSource, rows: Tensor) -> int:
    """Train no word but those of `rows`; return how many elements are frozen by that.

    Args:
        model: On the meta device, its words not tied to anything.
        source: As in `freeze_embeddings`.
        rows: Token ids, ascending, neither none nor all.
    """
    assert not model.tied_weights()
    frozen = 0
    for name, embeddings in _embeddings_of(model):
        table = embeddings.word_embeddings
        assert isinstance(table, Embedding) and table.weight.requires_grad
        embeddings.word_embeddings = parts = ActiveEmbedding(table, rows)
        whole = f"{name}.{TABLE}"
        source.divide(f"{whole}.weight", {f"{whole}.active.weight": rows, f"{whole}.frozen.weight": parts.other_rows})
        frozen += parts.frozen.weight.numel()
    return frozen


def frozen_dtypes(config: Config, model: PreTrained, source: ParameterSource) -> dict[str, torch.dtype]:
    """Return what to hold frozen embeddings in: words as their file has them, the few others in float32.

    Rounded to the dtype of products, as other frozen weights are, they would make another sum in evaluation, and
    another table in the model that is written. Where `tuning` freezes most weights, these are rounded as the rest.
    """
    if config.tuning.name != "full":
        return {}
    return {
        f"{name}.{inner}": source.dtype_of(f"{name}.{inner}") if inner.startswith(TABLE) else torch.float32
        for name, embeddings in _embeddings_of(model)
        for inner, parameter in embeddings.named_parameters()
        if not parameter.requires_grad
    }


def trained_rows(model: torch.nn.Module) -> dict[str, Tensor]:
    """Return the rows of each divided embedding as a checkpoint holds them, which has its two parts beside."""
    return {
        f"model.{name}.{ROWS}": module.rows
        for name, module in model.named_modules()
        if isinstance(module, ActiveEmbedding)
    }


def check_rows(folder: Path, model: torch.nn.Module) -> None:
    """Make sure that a checkpoint's parts of the embedding have the rows of the model's.

    Raises:
        CheckpointError: They have others.
    """
    index = read_index(folder)
    for name, rows in trained_rows(model).items():
        if name in index and not torch.equal(there := read_tensor(folder, index[name], torch.int64), rows):
            raise CheckpointError(
                f"{folder} must train the same rows of the vocabulary as this run, {len(rows):,}, "
                f"got {there.numel():,} of a run on other data. "
                "Set model.path to that run's folder to begin from its weights."
            )


def _embeddings_of(model: PreTrained) -> Iterator[tuple[str, XLMRobertaXLEmbeddings]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, XLMRobertaXLEmbeddings))


def _rows_read(task: Task, train: Corpus, num_rows: int) -> Tensor:
    """Return every token that a training batch may have, ascending."""
    seen = np.zeros(num_rows, dtype=bool)
    for table in train.tables:
        table.mark_tokens(seen)
    seen[task.empty_batch().inputs["input_ids"].numpy()] = True  # of a rank without work
    return torch.from_numpy(np.flatnonzero(seen))
