"""`xlmrxl_train.metrics.micro_f1` as an `evaluate.Metric`."""

from typing import ClassVar

import datasets

from xlmrxl_train.metrics import micro_f1, modules


class MicroF1(modules.ScoreMetric):
    """See `xlmrxl_train.metrics.micro_f1`."""

    score: ClassVar = micro_f1
    prediction: ClassVar = datasets.List(datasets.Value("int64"))
