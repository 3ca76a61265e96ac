"""`xlmrxl_train.metrics.squad_exact_match` as an `evaluate.Metric`."""

from typing import ClassVar

import datasets

from xlmrxl_train.metrics import modules, squad_exact_match


class SquadExactMatch(modules.ScoreMetric):
    """See `xlmrxl_train.metrics.squad_exact_match`."""

    score: ClassVar = squad_exact_match
    prediction: ClassVar = modules.TEXT
    references: ClassVar = (modules.ANSWERS, datasets.List(modules.TEXT))
