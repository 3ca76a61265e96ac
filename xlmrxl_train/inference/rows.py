"""Inputs through a task of a data set: one row at a time, so that a faulty one does not take others with it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from xlmrxl_train.data.examples import Batch, Example, Feature, Row
from xlmrxl_train.errors import DataError
from xlmrxl_train.inference.streaming import Work, attempt
from xlmrxl_train.tasks import Task


@dataclass(kw_only=True, slots=True)
class Features:
    """The features of an example, of which a batch has all."""

    example: Example
    task: Task
    rows: list[Feature] = field(default_factory=list)

    def work(self) -> Work:
        """Return the example as a share of a batch."""
        return Work(size=sum(len(feature.input_ids) for feature in self.rows), content=self)


def example_of(task: Task, row: Row) -> Example:
    """Return the example of a row.

    Raises:
        DataError: The row is wrong.
    """
    examples = list(task.examples([row]))
    if not examples:  # translation leaves out blank rows
        raise DataError(f"{row.where}: expected text, found none. Mend or remove the row.")
    return examples[0]


def encode_each(task: Task, examples: Sequence[Example]) -> list[list[Feature] | DataError]:
    """Tokenise examples, all at once where none of them is at fault."""
    together = attempt(task.encode, examples)
    if not isinstance(together, DataError):
        return list(together)
    return [
        one if isinstance(one, DataError) else one[0]
        for one in (attempt(task.encode, [example]) for example in examples)
    ]


def as_options(fault: DataError) -> DataError:
    """Return a task's fault in the words of a pipeline, whose options are what a run calls task.max_length."""
    return DataError(re.sub(r"\btask\.(?=max_length|stride)", "", str(fault)))


def collate(works: Sequence[Work]) -> tuple[Batch, list[Feature]]:
    """Return the batch of some examples, numbered in their order, and its features."""
    contents: list[Features] = [work.content for work in works]
    features = [feature for content in contents for feature in content.rows]
    places = [(0, number) for number, content in enumerate(contents) for _ in content.rows]
    order = sorted(range(len(features)), key=lambda index: -len(features[index].input_ids))
    features, places = [features[index] for index in order], [places[index] for index in order]
    return contents[0].task.collate(features, places, draw=0), features
