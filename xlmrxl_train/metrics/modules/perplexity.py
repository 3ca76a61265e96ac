"""`xlmrxl_train.metrics.perplexity` as an `evaluate.Metric`."""

from typing import ClassVar

from xlmrxl_train.metrics import modules, perplexity


class Perplexity(modules.ScoreMetric):
    """See `xlmrxl_train.metrics.perplexity`."""

    score: ClassVar = perplexity
    prediction: ClassVar = modules.NUMBER
