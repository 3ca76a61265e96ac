"""`xlmrxl_train.metrics.entity_f1_strict` as an `evaluate.Metric`."""

from typing import ClassVar

import datasets

from xlmrxl_train.metrics import entity_f1_strict, modules


class EntityF1Strict(modules.ScoreMetric):
    """See `xlmrxl_train.metrics.entity_f1_strict`."""

    score: ClassVar = entity_f1_strict
    prediction: ClassVar = datasets.List(modules.TEXT)
