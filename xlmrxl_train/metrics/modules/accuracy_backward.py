"""`xlmrxl_train.metrics.accuracy_backward` as an `evaluate.Metric`."""

from typing import ClassVar

import datasets

from xlmrxl_train.metrics import accuracy_backward, modules


class AccuracyBackward(modules.ScoreMetric):
    """See `xlmrxl_train.metrics.accuracy_backward`."""

    score: ClassVar = accuracy_backward
    prediction: ClassVar = datasets.List(datasets.Value("int64"))
    references: ClassVar = (datasets.Value("int64"),)
