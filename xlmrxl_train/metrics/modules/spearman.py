"""`xlmrxl_train.metrics.spearman` as an `evaluate.Metric`."""

from typing import ClassVar

from xlmrxl_train.metrics import modules, spearman


class Spearman(modules.ScoreMetric):
    """See `xlmrxl_train.metrics.spearman`."""

    score: ClassVar = spearman
    prediction: ClassVar = modules.NUMBER
