"""What is kept of one language's predictions: a few numbers per example, however large model and vocabulary are."""

from collections.abc import Callable, Sequence

import numpy as np

from xlmrxl_train import metrics
from xlmrxl_train.evaluation.predictions import PredictionFile
from xlmrxl_train.tasks import Prediction, Task


class Tally:
    """The statistics of every example of one split and language, filled in as predictions come.

    Attributes:
        statistics: Metric -> [examples, k], one row per example.
    """

    def __init__(
        self,
        task: Task,
        split: str,
        language: str,
        ids: Sequence[str],
        file: PredictionFile | None,
        texts: Callable[[int], list[str]] | None = None,
    ) -> None:
        """Make room for the examples with these ids.

        Args:
            task: Reads and describes predictions.
            split: What the examples are of.
            language: Likewise.
            ids: Of the examples.
            file: Where predictions are written; None: nowhere.
            texts: Returns what the model read of an example, which the file shows too; None: it does not.
        """
        self.split, self.language = split, language
        self.statistics: dict[str, np.ndarray] = {}
        self.ids, self._task, self._file, self._texts = ids, task, file, texts
        self._counts = np.zeros(len(ids), dtype=np.int32)
        self._said: tuple[set[str], set[str]] = set(), set()  # by predictions and by references, not more than it takes
        self._waiting: list[Prediction] = []  # of a task that decides about all examples together

    def add(self, predictions: Sequence[Prediction]) -> None:
        """Enter the predictions of some examples, in any order."""
        np.add.at(self._counts, [item.example for item in predictions], 1)
        if not self._task.decides_together:
            self._enter(predictions)
            return
        self._waiting += predictions
        if len(self._waiting) == len(self.ids):
            decided, self._waiting = self._task.decide(self._waiting, self.split, self.language), []
            self._enter(decided)

    def _enter(self, predictions: Sequence[Prediction]) -> None:
        if not predictions:
            return
        places = [item.example for item in predictions]
        guesses, truths = [item.prediction for item in predictions], [item.reference for item in predictions]
        for values, said in zip((guesses, truths), self._said, strict=True):
            for value in values:
                if len(said) > 1:
                    break
                said.update(self._task.outcomes(value))
        scored = self._task.metrics if self._task.labelled else []
        rows_of = {name: metrics.load(name).statistics(guesses, truths) for name in scored}
        for name, rows in rows_of.items():
            if name not in self.statistics:
                self.statistics[name] = np.zeros((len(self.ids), rows.shape[1]))
            self.statistics[name][places] = rows
        if self._file is not None:
            for index, item in enumerate(predictions):
                line = {"id": self.ids[item.example], **self._task.describe(item)}
                if self._texts is not None:
                    line["texts"] = self._texts(item.example)
                if rows_of:
                    line["statistics"] = {name: rows[index].tolist() for name, rows in rows_of.items()}
                self._file.add(item.example, line)

    @property
    def constant(self) -> bool:
        """Return whether all predictions are the same, though not all references are."""
        guesses, truths = self._said
        return len(guesses) == 1 < len(truths)

    @property
    def missing(self) -> list[int]:
        """Return the examples without a prediction."""
        return np.flatnonzero(self._counts == 0).tolist()

    @property
    def doubled(self) -> list[int]:
        """Return the examples with several."""
        return np.flatnonzero(self._counts > 1).tolist()

    def close(self) -> None:
        """Bring the file of predictions into the data set's order."""
        if self._file is not None:
            self._file.close()
