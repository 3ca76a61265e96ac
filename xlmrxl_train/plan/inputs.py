"""Inputs of a task's model, made up from lengths alone."""

from collections.abc import Callable
from typing import Any

from xlmrxl_train.data.examples import Feature
from xlmrxl_train.tasks import Task

Inputs = Callable[[list[int]], dict[str, Any]]


def inputs_of(task: Task) -> Inputs:
    """Return what makes the inputs of the task's model from lengths of sequences; contents are made up."""
    token = task.tokenizer.unk_token_id + 1

    def inputs(lengths: list[int]) -> dict[str, Any]:
        columns = task.no_target()
        features = [
            Feature(
                example=index,
                input_ids=[token] * length,
                columns=columns | {"source_length": -(-length // 2)} if "source_length" in columns else columns,
            )
            for index, length in enumerate(lengths)
        ]
        return task.collate(features, [(0, index) for index in range(len(features))], draw=1).inputs

    return inputs
