"""The classes of a data set, by the names that its files write."""

from collections.abc import Sequence
from typing import Any

from xlmrxl_train.config import DatasetConfig
from xlmrxl_train.tasks.task import class_ids

IGNORED = -100  # the class id that counts nothing, as in torch's cross entropy


class Labels:
    """Finds the class of a label written as a word, as in `label_values`, or as the number of its class."""

    def __init__(self, dataset: DatasetConfig) -> None:
        """Number the classes in the order of `dataset.labels`."""
        self.names = list(dataset.labels)
        self.class_of = class_ids(dataset)

    def find(self, raw: object) -> int | None:
        """Return the class of a label as a file or the Hub writes it; None if it is none of them."""
        text = str(raw)
        if text in self.class_of:
            return self.class_of[text]
        if text.isdecimal() and len(text) < 10 and int(text) < len(self.names):
            return int(text)
        return None

    @property
    def expected(self) -> str:
        """Say for a message what a label must be."""
        return f"must be one of {', '.join(self.class_of)} or a number below {len(self.names)}"


def options_of_classes(names: Sequence[str]) -> dict[str, Any]:
    """Return number and names of classes under the keys of a model's configuration, as the Hub names them."""
    return {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
    }
