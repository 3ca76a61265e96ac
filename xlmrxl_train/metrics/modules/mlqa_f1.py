"""`xlmrxl_train.metrics.mlqa_f1` as an `evaluate.Metric`."""

from typing import ClassVar

from xlmrxl_train.metrics import mlqa_f1, modules


class MlqaF1(modules.ScoreMetric):
    """See `xlmrxl_train.metrics.mlqa_f1`."""

    score: ClassVar = mlqa_f1
    prediction: ClassVar = modules.TEXT
    references: ClassVar = (modules.ANSWERS,)
