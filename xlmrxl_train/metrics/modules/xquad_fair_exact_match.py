"""`xlmrxl_train.metrics.xquad_fair_exact_match` as an `evaluate.Metric`."""

from typing import ClassVar

from xlmrxl_train.metrics import modules, xquad_fair_exact_match


class XquadFairExactMatch(modules.ScoreMetric):
    """See `xlmrxl_train.metrics.xquad_fair_exact_match`."""

    score: ClassVar = xquad_fair_exact_match
    prediction: ClassVar = modules.TEXT
    references: ClassVar = (modules.ANSWERS,)
