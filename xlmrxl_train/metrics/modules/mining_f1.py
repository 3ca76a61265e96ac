"""`xlmrxl_train.metrics.mining_f1` as an `evaluate.Metric`."""

from typing import ClassVar

import datasets

from xlmrxl_train.metrics import mining_f1, modules


class MiningF1(modules.ScoreMetric):
    """See `xlmrxl_train.metrics.mining_f1`."""

    score: ClassVar = mining_f1
    prediction: ClassVar = datasets.List(modules.TEXT)
