"""`xlmrxl_train.metrics.multilabel_macro_f1` as an `evaluate.Metric`."""

from typing import ClassVar

import datasets

from xlmrxl_train.metrics import modules, multilabel_macro_f1


class MultilabelMacroF1(modules.ScoreMetric):
    """See `xlmrxl_train.metrics.multilabel_macro_f1`."""

    score: ClassVar = multilabel_macro_f1
    prediction: ClassVar = datasets.List(datasets.Value("int64"))
