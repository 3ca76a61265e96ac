"""`xlmrxl_train.metrics.tag_accuracy` as an `evaluate.Metric`."""

from typing import ClassVar

import datasets

from xlmrxl_train.metrics import modules, tag_accuracy


class TagAccuracy(modules.ScoreMetric):
    """See `xlmrxl_train.metrics.tag_accuracy`."""

    score: ClassVar = tag_accuracy
    prediction: ClassVar = datasets.List(modules.TEXT)
