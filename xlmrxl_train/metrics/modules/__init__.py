"""The metrics as `evaluate.Metric` classes, for code that speaks that library; training does not import it."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any, ClassVar

import datasets
import evaluate

NUMBER = datasets.Value("float64")
TEXT = datasets.Value("string")
ANSWERS = {"texts": datasets.List(TEXT), "language": TEXT}


class ScoreMetric(evaluate.Metric):  # type: ignore[misc]
    """One file of `xlmrxl_train.metrics`, as `compute(predictions=[...], references=[...]) -> {name: score}`."""

    score: ClassVar[ModuleType]
    prediction: ClassVar[object] = datasets.Value("int64")  # what one of them is, as a feature
    references: ClassVar[tuple[object, ...]] = ()  # the forms that one of them may have; empty: the prediction's

    def _info(self) -> evaluate.MetricInfo:
        forms = self.references or (self.prediction,)
        features = [datasets.Features({"predictions": self.prediction, "references": form}) for form in forms]
        return evaluate.MetricInfo(
            description=self.score.__doc__ or "",
            citation="",
            inputs_description=self.score.statistics.__doc__ or "",
            features=features if len(features) > 1 else features[0],
        )

    def _compute(self, predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
        name = self.score.__name__.rpartition(".")[2]
        return {name: self.score.fold(self.score.statistics(predictions, references))}
