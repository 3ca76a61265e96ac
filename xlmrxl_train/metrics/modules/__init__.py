"""The metrics as `evaluate.Metric` classes, for code that speaks that library; training does not import it."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any, ClassVar

import datasets
import evaluate


class ScoreMetric(evaluate.Metric):  # type: ignore[misc]
    """One file of `xlmrxl_train.metrics`, as `compute(predictions=[...], references=[...]) -> {name: score}`."""

    score: ClassVar[ModuleType]
    dtype: ClassVar[str] = "int64"  # of predictions and references

    def _info(self) -> evaluate.MetricInfo:
        value = datasets.Value(self.dtype)
        return evaluate.MetricInfo(
            description=self.score.__doc__ or "",
            citation="",
            inputs_description=self.score.statistics.__doc__ or "",
            features=datasets.Features({"predictions": value, "references": value}),
        )

    def _compute(self, predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
        name = self.score.__name__.rpartition(".")[2]
        return {name: self.score.fold(self.score.statistics(predictions, references))}
