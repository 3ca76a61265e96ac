"""`xlmrxl_train.metrics.accuracy_forward` as an `evaluate.Metric`."""

from typing import ClassVar

import datasets

from xlmrxl_train.metrics import accuracy_forward, modules


class AccuracyForward(modules.ScoreMetric):
    """See `xlmrxl_train.metrics.accuracy_forward`."""

    score: ClassVar = accuracy_forward
    prediction: ClassVar = datasets.List(datasets.Value("int64"))
    references: ClassVar = (datasets.Value("int64"),)
