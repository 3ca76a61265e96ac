"""`xlmrxl_train.metrics.pearson` as an `evaluate.Metric`."""

from typing import ClassVar

from xlmrxl_train.metrics import modules, pearson


class Pearson(modules.ScoreMetric):
    """See `xlmrxl_train.metrics.pearson`."""

    score: ClassVar = pearson
    prediction: ClassVar = modules.NUMBER
