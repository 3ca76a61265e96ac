"""`xlmrxl_train.metrics.accuracy` as an `evaluate.Metric`."""

from typing import ClassVar

from xlmrxl_train.metrics import accuracy, modules


class Accuracy(modules.ScoreMetric):
    """See `xlmrxl_train.metrics.accuracy`."""

    score: ClassVar = accuracy
