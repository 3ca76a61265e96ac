"""`xlmrxl_train.metrics.chrf` as an `evaluate.Metric`."""

from typing import ClassVar

from xlmrxl_train.metrics import chrf, modules


class Chrf(modules.ScoreMetric):
    """See `xlmrxl_train.metrics.chrf`."""

    score: ClassVar = chrf
    prediction: ClassVar = modules.TEXT
