"""`xlmrxl_train.metrics.squad_f1` as an `evaluate.Metric`."""

from typing import ClassVar

import datasets

from xlmrxl_train.metrics import modules, squad_f1


class SquadF1(modules.ScoreMetric):
    """See `xlmrxl_train.metrics.squad_f1`."""

    score: ClassVar = squad_f1
    prediction: ClassVar = modules.TEXT
    references: ClassVar = (modules.ANSWERS, datasets.List(modules.TEXT))
