"""`xlmrxl_train.metrics.pos_f1` as an `evaluate.Metric`."""

from typing import ClassVar

import datasets

from xlmrxl_train.metrics import modules, pos_f1


class PosF1(modules.ScoreMetric):
    """See `xlmrxl_train.metrics.pos_f1`."""

    score: ClassVar = pos_f1
    prediction: ClassVar = datasets.List(modules.TEXT)
