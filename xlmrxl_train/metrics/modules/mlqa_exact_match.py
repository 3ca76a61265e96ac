"""`xlmrxl_train.metrics.mlqa_exact_match` as an `evaluate.Metric`."""

from typing import ClassVar

from xlmrxl_train.metrics import mlqa_exact_match, modules


class MlqaExactMatch(modules.ScoreMetric):
    """See `xlmrxl_train.metrics.mlqa_exact_match`."""

    score: ClassVar = mlqa_exact_match
    prediction: ClassVar = modules.TEXT
    references: ClassVar = (modules.ANSWERS,)
