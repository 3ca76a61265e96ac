"""Predictions of a trained run for rows without labels, through the run's own task: as it was evaluated."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch

from xlmrxl_train.config import Config
from xlmrxl_train.data import languages
from xlmrxl_train.data.examples import Row
from xlmrxl_train.data.files import shown
from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.errors import ConfigError, DataError
from xlmrxl_train.inference.base import Pipeline
from xlmrxl_train.inference.opening import load_model, settle
from xlmrxl_train.inference.rows import Features, collate, encode_each, example_of
from xlmrxl_train.inference.streaming import Input, Work
from xlmrxl_train.model import PreTrained
from xlmrxl_train.tasks import TASKS, Task, make_task

# Roles that a prediction is made without.
_GOLD = {"translation": ("text_pair",)}
_GOLD_OF_OTHERS = ("label", "tags", "answers")


class Predictor(Pipeline):
    """Takes a row, column -> value; returns what the run's files of predictions show of it, without a reference."""

    task: ClassVar[str] = "predict"
    model_class: ClassVar[type[PreTrained]] = PreTrained

    def __init__(self, model: PreTrained, tokenizer: Tokenizer, config: Config, language: str) -> None:
        """Take over a model.

        Args:
            model: Of the run's task.
            tokenizer: Of the run.
            config: Of the run.
            language: Of the rows; "": the task does not look at it.
        """
        super().__init__(model, tokenizer, own=True, options={"tokens_per_batch": config.evaluate.tokens_per_batch})
        self.run_task = make_task(config.task, config.dataset, tokenizer)
        self.run_task.labelled = False
        self.language = language
        gold = _GOLD.get(config.task.kind, _GOLD_OF_OTHERS)
        self.columns = {
            role: column.replace("{language}", language)
            for role, column in config.dataset.columns.items()
            if role not in gold
        }
        self.id_column = config.dataset.id_column

    def read(self, item: Input, options: Any) -> Features:
        """Find the columns of a row, under the data set's names or under those of their roles."""
        record = item.value
        values = {}
        for role, column in self.columns.items():
            name = column if column in record else role
            if name not in record:
                either = f"{column!r} or {role!r}" if column != role else f"{role!r}"
                raise DataError(f"{item.where}: expected a column {either}, found "
                                f"{', '.join(map(shown, list(record)[:20]))}. Name the columns so.")  # fmt: skip
            value = record[name]
            values[role] = value.split() if role == "tokens" and isinstance(value, str) else value
        row = Row(id=str(item.number), values=values, where=item.where, language=self.language)
        return Features(example=example_of(self.run_task, row), task=self.run_task)

    def encode(self, contents: Sequence[Features], options: Any) -> Iterable[Any]:
        """Tokenise as in training."""
        return encode_each(self.run_task, [content.example for content in contents])

    def work(self, item: Input, content: Features, encoded: Any, options: Any) -> Work:
        """Return all features of a row."""
        if isinstance(encoded, DataError):
            raise encoded
        content.rows = encoded
        return content.work()

    def compute(self, works: Sequence[Work], options: Any) -> Sequence[Any]:
        """Run the model and let the task read predictions off."""
        batch, features = collate(works)
        output = self.run_batch(batch, self.run_task)
        for logits in (output.logits, output.start_logits, output.end_logits):
            if logits is not None:
                self.finite(logits)
        results: list[Any] = [None] * len(works)
        for prediction in self.run_task.predict(output, batch, features):
            described = self.run_task.describe(prediction)
            results[prediction.example] = {key: value for key, value in described.items() if key != "reference"}
        return results


def open_run(
    folder: str, config: Config, *, dtype: torch.dtype | None, device: torch.device, language: str = ""
) -> Predictor:
    """Return the predictor of a run folder.

    Args:
        folder: Of the run, with its model.
        config: Of the run.
        dtype: Of the weights; None: as in the file.
        device: Where to compute.
        language: Of the rows, where the task treats languages differently or the columns name them.

    Raises:
        ConfigError: The run has no model, or its task predicts nothing about a row.
        DataError: There is no such language.
    """
    if language:
        languages.language(language)
    kind: type[Task] = TASKS[config.task.kind]
    if not (kind.trains and kind.learns_from_labels):
        able = [name for name, each in TASKS.items() if each.trains and each.learns_from_labels]
        raise ConfigError(
            f"predict must have a run of {', '.join(able)}, got {folder}, a run of {config.task.kind}. "
            "For language models use xlmrxl run --task fill-mask or text-generation."
        )
    if config.task.kind == "translation" and dtype == torch.float16:
        raise ConfigError(
            "dtype must be bfloat16 or float32 for translation, got float16, in which numbers that are too large would "
            "be read as words. Use bfloat16."
        )
    model = load_model(kind.model_class, folder, dtype=dtype, device=device, revision=None)
    return Predictor(settle(model), Tokenizer.from_path(folder, key="model"), config, language)
