"""`xlmrxl_train.metrics.macro_f1` as an `evaluate.Metric`."""

from xlmrxl_train.metrics import macro_f1, modules


class MacroF1(modules.ScoreMetric):
    """See `xlmrxl_train.metrics.macro_f1`."""

    score = macro_f1
