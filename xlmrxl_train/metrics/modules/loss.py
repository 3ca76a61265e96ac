"""`xlmrxl_train.metrics.loss` as an `evaluate.Metric`."""

from typing import ClassVar

from xlmrxl_train.metrics import loss, modules


class Loss(modules.ScoreMetric):
    """See `xlmrxl_train.metrics.loss`."""

    score: ClassVar = loss
    prediction: ClassVar = modules.NUMBER
