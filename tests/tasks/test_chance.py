"""The loss of guessing, and whether all predictions of a language are the same."""

import math
from pathlib import Path
from typing import Any

import pytest

from xlmrxl_train import load_config
from xlmrxl_train.evaluation.tally import Tally
from xlmrxl_train.session import SAMPLE_TOKENIZER, Session
from xlmrxl_train.tasks import Prediction, Task
from xlmrxl_train.training_sets import chance_loss


def session_of(*words: str) -> Session:
    return Session.open(load_config([*words, "model=tiny", "model.path=null", f"tokenizer.path={SAMPLE_TOKENIZER}"]))


@pytest.mark.parametrize(
    ("words", "classes"),
    [
        (["recipe=demo"], 3),
        (["recipe=demo", "task.class_weights=[1,1,2]"], None),
        (["recipe=demo_pretrain"], None),
    ],
)
def test_guessing_has_a_loss_where_classes_weigh_alike(words: list[str], classes: int | None) -> None:
    found = chance_loss(session_of(*words).training_sets)
    assert found == (None if classes is None else pytest.approx(math.log(classes)))


@pytest.mark.parametrize(
    ("words", "classes"),
    [(["recipe=xcopa"], 2), (["recipe=sib200"], 7), (["recipe=panx"], None), (["recipe=tydiqa"], None)],
)
def test_guessing_on_real_data_sets(shared_data: Path, words: list[str], classes: int | None) -> None:
    """Of the set that is trained on."""
    found = chance_loss(session_of(*words, f"data.root={shared_data}").training_sets)
    assert found == (None if classes is None else pytest.approx(math.log(classes)))


def constant(task: Task, *pairs: tuple[Any, Any]) -> bool:
    """Enter (prediction, reference) of each example, the last one by itself."""
    tally = Tally(task, "validation", "en", list(map(str, range(len(pairs)))), None)
    items = [Prediction(table=0, example=at, prediction=a, reference=b) for at, (a, b) in enumerate(pairs)]
    tally.add(items[:-1])
    tally.add(items[-1:])
    return tally.constant


def test_predictions_are_constant_where_references_are_not() -> None:
    task = session_of("recipe=demo").task
    assert constant(task, (1, 0), (1, 1), (1, 2))
    assert not constant(task, (1, 0), (1, 1), (2, 2))
    assert not constant(task, (1, 1), (1, 1))  # that is right
    assert not constant(task, (0, 0))


def test_tags_are_constant_one_by_one(shared_data: Path) -> None:
    task = session_of("recipe=panx", f"data.root={shared_data}").task
    assert constant(task, (["O", "O"], ["O", "B-PER"]), (["O"], ["O"]))
    assert not constant(task, (["O", "O"], ["O", "B-PER"]), (["B-LOC"], ["O"]))
    assert not constant(task, (["O", "O"], ["O", "O"]), (["O"], ["O"]))
