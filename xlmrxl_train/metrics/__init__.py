"""Scores: functions on plain lists, one file per metric.

A metric first makes one row of statistics per example and then folds rows into scores, so that intervals and paired
tests come from resampling rows. `modules/` holds the same as `evaluate.Metric` classes, loaded by path, offline:

    evaluate.load(xlmrxl_train.metrics.path("accuracy")).compute(predictions=[0, 1], references=[0, 0])
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from xlmrxl_train.errors import ConfigError

NAMES = (
    "accuracy",
    "accuracy_forward",
    "accuracy_backward",
    "macro_f1",
    "micro_f1",
    "multilabel_macro_f1",
    "pearson",
    "spearman",
    "entity_f1",
    "entity_f1_strict",
    "pos_f1",
    "tag_accuracy",
    "squad_f1",
    "squad_exact_match",
    "mlqa_f1",
    "mlqa_exact_match",
    "xquad_fair_f1",
    "xquad_fair_exact_match",
    "mining_f1",
    "loss",
    "perplexity",
    "bleu",
    "chrf",
)


class Metric(Protocol):
    """What the evaluator needs of a metric's module."""

    HIGHER_IS_BETTER: bool

    @staticmethod
    def statistics(predictions: Sequence[Any], references: Sequence[Any]) -> np.ndarray:
        """Return one row of numbers per example, float64 [examples, k]."""

    @staticmethod
    def fold(rows: np.ndarray) -> float:
        """Return the score of the examples whose rows are given, [examples, k]."""


def path(name: str) -> str:
    """Return the file to give to `evaluate.load`."""
    return str(Path(__file__).parent / "modules" / f"{name}.py")


def load(name: str) -> Metric:
    """Return the metric of this name.

    Raises:
        ConfigError: There is none.
    """
    if name not in NAMES:
        raise ConfigError(f"dataset.metrics must be of {', '.join(NAMES)}, got {name!r}.")
    return importlib.import_module(f"xlmrxl_train.metrics.{name}")  # type: ignore[return-value]
