"""`xlmrxl_train.metrics.perplexity` as an `evaluate.Metric`."""

from xlmrxl_train.metrics import modules, perplexity


class Perplexity(modules.ScoreMetric):
    """See `xlmrxl_train.metrics.perplexity`."""

    score = perplexity
    dtype = "float64"
