"""`xlmrxl_train.metrics.bleu` as an `evaluate.Metric`."""

from typing import ClassVar

from xlmrxl_train.metrics import bleu, modules


class Bleu(modules.ScoreMetric):
    """See `xlmrxl_train.metrics.bleu`."""

    score: ClassVar = bleu
    prediction: ClassVar = modules.TEXT
