"""`xlmrxl_train.metrics.macro_f1` as an `evaluate.Metric`."""

from typing import ClassVar

from xlmrxl_train.metrics import macro_f1, modules


class MacroF1(modules.ScoreMetric):
    """See `xlmrxl_train.metrics.macro_f1`."""

    score: ClassVar = macro_f1
