"""`xlmrxl_train.metrics.entity_f1` as an `evaluate.Metric`."""

from typing import ClassVar

import datasets

from xlmrxl_train.metrics import entity_f1, modules


class EntityF1(modules.ScoreMetric):
    """See `xlmrxl_train.metrics.entity_f1`."""

    score: ClassVar = entity_f1
    prediction: ClassVar = datasets.List(modules.TEXT)
