"""Any number of inputs through a model in bounded memory: windows are read, sorted by length, cut into batches.

Within a window the longest inputs come first and a batch has as many as a budget of tokens allows; results leave in
the order in which inputs came. A faulty input is an outcome like any other, so that it does not take others with it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ParamSpec, Protocol, TypeVar

from xlmrxl_train.data.planning import evaluation_batches
from xlmrxl_train.errors import DataError
from xlmrxl_train.model.heap import release_free_memory

Value = TypeVar("Value")
Arguments = ParamSpec("Arguments")


@dataclass(kw_only=True, slots=True)
class Input:
    """What is asked, and the words with which a message about it begins: "input 3", "pairs.tsv:3"."""

    where: str
    value: Any = None
    number: int = 0  # of its line from 1, or of its record from 0
    by_line: bool = True
    fault: DataError | None = None  # found when it was read: there is no value


@dataclass(kw_only=True, slots=True)
class Work:
    """An input that can be computed."""

    size: int  # its share of a batch: tokens, or more where it costs more than they do
    content: Any


@dataclass(kw_only=True, slots=True)
class Outcome:
    """What became of an input: a result, or the fault that it has."""

    input: Input
    result: Any = None
    fault: DataError | None = None


class Steps(Protocol):
    """What a pipeline does with inputs."""

    def prepare(self, inputs: Sequence[Input]) -> Sequence[Work | DataError]:
        """Turn inputs into sequences of tokens; of each what it is, or its fault."""

    def compute(self, works: Sequence[Work]) -> Sequence[Any]:
        """Run the model on one batch; a result for each."""


def stream(steps: Steps, inputs: Iterable[Input], *, window: int, tokens_per_batch: int) -> Iterator[Outcome]:
    """Yield the outcome of every input, in order.

    Args:
        steps: What is done.
        inputs: Read `window` at a time, and only when outcomes are asked for.
        window: Inputs that are sorted together, and held at a time.
        tokens_per_batch: Of one forward pass; a larger input stands alone.
    """
    iterator = iter(inputs)
    while part := list(islice(iterator, window)):
        outcomes = _one_window(steps, part, tokens_per_batch)
        if len(part) == window:  # more may come; batches of ever other sizes leave gaps, and memory would grow
            release_free_memory()
        yield from outcomes


def attempt(
    action: Callable[Arguments, Value], *values: Arguments.args, **named: Arguments.kwargs
) -> Value | DataError:
    """Return what `action` returns, or the fault of the input that it found."""
    try:
        return action(*values, **named)
    except DataError as fault:
        return fault


def _one_window(steps: Steps, inputs: Sequence[Input], tokens_per_batch: int) -> list[Outcome]:
    outcomes = [Outcome(input=item, fault=item.fault) for item in inputs]
    sound = [outcome for outcome in outcomes if outcome.fault is None]
    works: list[Work] = []
    owners: list[Outcome] = []
    for outcome, prepared in zip(sound, steps.prepare([outcome.input for outcome in sound]), strict=True):
        if isinstance(prepared, DataError):
            outcome.fault = prepared
        else:
            works.append(prepared)
            owners.append(outcome)
    for batch in evaluation_batches([work.size for work in works], tokens_per_batch):
        results = steps.compute([works[position] for position in batch])
        for position, result in zip(batch, results, strict=True):
            owners[position].result = result
    return outcomes
