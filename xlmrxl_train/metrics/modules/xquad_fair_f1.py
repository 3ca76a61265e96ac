"""`xlmrxl_train.metrics.xquad_fair_f1` as an `evaluate.Metric`."""

from typing import ClassVar

from xlmrxl_train.metrics import modules, xquad_fair_f1


class XquadFairF1(modules.ScoreMetric):
    """See `xlmrxl_train.metrics.xquad_fair_f1`."""

    score: ClassVar = xquad_fair_f1
    prediction: ClassVar = modules.TEXT
    references: ClassVar = (modules.ANSWERS,)
