"""What every pipeline shares: options, the way of one or many inputs, forward passes on packed sequences.

Suffixes: T tokens of a packed batch.
"""

import re
import sys
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from xlmrxl_train.data.examples import Batch
from xlmrxl_train.data.files import shown
from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.errors import CheckpointError, ConfigError, DataError
from xlmrxl_train.inference.streaming import Input, Outcome, Steps, Work, attempt, stream
from xlmrxl_train.model import ModelOutput, PackedSequences, PreTrained, prepacked
from xlmrxl_train.spelling import did_you_mean
from xlmrxl_train.tasks import Task
from xlmrxl_train.track.console import Console

_HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # of a surrogate pair: no tokenizer takes it


@dataclass(kw_only=True, frozen=True)
class Options:
    """What may be said when a pipeline is made, and otherwise at each call."""

    tokens_per_batch: int = 8192
    """Tokens of one forward pass."""
    window: int = 2048
    """Inputs that are read, sorted by length, and held at a time."""
    truncation: bool = False
    """Whether a text that is too long is cut at its end; otherwise it is a fault."""
    max_length: int | None = None
    """Tokens of a sequence, special ones included; None: as many as the model has positions."""

    def changed(self, task: str, values: dict[str, Any]) -> Self:
        """Return these options with other values.

        Raises:
            ConfigError: There is no such option, or it cannot have the value.
        """
        names = [entry.name for entry in fields(self)]
        for name in values:
            if name not in names:
                hint = did_you_mean(name, names, f"{task} has {', '.join(names)}.")
                raise ConfigError(f"{name} is not an option of {task}. {hint}")
        changed = replace(self, **values)
        if faults := changed.faults():
            raise ConfigError(*faults)
        return changed

    def faults(self) -> list[str]:
        """Return what is wrong with the values."""
        return [
            *at_least("tokens_per_batch", self.tokens_per_batch, 1),
            *at_least("window", self.window, 1),
            *at_least("max_length", self.max_length, 4, or_none=True),
            *yes_or_no("truncation", self.truncation),
        ]


def at_least(name: str, value: object, least: int, *, or_none: bool = False) -> list[str]:
    """Return the fault of an option that must be an integer."""
    if (value is None and or_none) or (isinstance(value, int) and not isinstance(value, bool) and value >= least):
        return []
    return [f"{name} must be an integer of at least {least}, got {shown(value)}. Set it anew or leave it out."]


def yes_or_no(name: str, value: object) -> list[str]:
    """Return the fault of an option that must be true or false."""
    return [] if isinstance(value, bool) else [f"{name} must be true or false, got {shown(value)}. Set one of them."]


def texts(name: str, value: object) -> list[str]:
    """Return the fault of an option that must be a list of texts."""
    if isinstance(value, list | tuple | set | frozenset) and all(isinstance(text, str) for text in value):
        return []
    return [f"{name} must be a list of texts, got {shown(value)}. Write [...] around them, and quote words such as no."]


def one_of(name: str, value: object, choices: Sequence[str]) -> list[str]:
    """Return the fault of an option that must be one of a few words."""
    if isinstance(value, str) and value in choices:
        return []
    return [f"{name} must be {' | '.join(choices)}, got {shown(value)}. Choose one of them."]


class Pipeline(ABC):
    """A model, its tokenizer and what comes before and after its forward pass. Made by `pipeline`."""

    task: ClassVar[str]
    model_class: ClassVar[type[PreTrained]]
    options_class: ClassVar[type[Options]] = Options
    causal: ClassVar[bool | None] = None  # whether tokens must not see later ones; None: as the model was trained

    def __init__(
        self, model: PreTrained, tokenizer: Tokenizer, *, own: bool = False, options: dict[str, Any] | None = None
    ) -> None:
        """Take over a model.

        Args:
            model: Of `model_class`, in evaluation mode.
            tokenizer: Of the model.
            own: Whether nobody else changes the model's weights, so that forms of them which are quicker to
                multiply with may be kept from call to call.
            options: Of the task.

        Raises:
            ConfigError: Options are wrong, or model and tokenizer do not fit together.
        """
        if not isinstance(model, self.model_class):
            raise ConfigError(
                f"model must be a {self.model_class.__name__} for {self.task}, got a {type(model).__name__}. "
                "Name a folder, a run folder or a Hub id instead."
            )
        if len(tokenizer) > model.config.vocab_size:
            raise ConfigError(
                f"tokenizer has {len(tokenizer):,} tokens, more than the model's {model.config.vocab_size:,} rows. "
                "Use the tokenizer that belongs to the weights."
            )
        if self.causal not in (None, model.config.is_decoder):
            sees, other = ("see", "fill-mask") if self.causal else ("do not see", "text-generation")
            raise ConfigError(
                f"model must have is_decoder {str(self.causal).lower()} in its config.json for {self.task}, got one "
                f"whose tokens {sees} later ones. Use {other}, or another model."
            )
        self.model, self.tokenizer = model, tokenizer
        self.options = self.options_class().changed(self.task, options or {})
        self._own = own
        if own:
            kept = ExitStack()
            kept.enter_context(prepacked(model))
            weakref.finalize(self, kept.close)  # also at exit, while torch is still whole

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """Answer one input, or all of a list; of other iterables, yield the answers as they are asked for.

        Args:
            inputs: One, a list, or anything that can be iterated over, such as a generator: it is read as it goes.
            options: Of this call; the others are those of the pipeline.

        Raises:
            DataError: An input is wrong; the message begins with its number, from 1.
        """
        settings = self.options.changed(self.task, options)
        if self.is_one(inputs, settings):
            return self.one(inputs, next(self._results([inputs], settings)), options)
        if isinstance(inputs, list | tuple):
            return list(self._results(inputs, settings))
        if not isinstance(inputs, Iterable):
            raise DataError(f"{self.task} must have a text, a list or an iterable, got {shown(inputs)}. Give one.")
        return self._showing(self._results(inputs, settings), len(inputs) if isinstance(inputs, Sized) else None)

    def outcomes(self, inputs: Iterable[Input], options: Options | None = None) -> Iterator[Outcome]:
        """Yield a result or a fault for every input, in order."""
        settings = options or self.options
        steps = _Bound(self, settings)
        copies: AbstractContextManager[None] = nullcontext() if self._own else prepacked(self.model)
        with copies:
            yield from stream(steps, inputs, window=settings.window, tokens_per_batch=settings.tokens_per_batch)

    def is_one(self, inputs: Any, options: Any) -> bool:
        """Return whether this is one input and not several."""
        return isinstance(inputs, str | dict)

    def one(self, inputs: Any, result: Any, options: dict[str, Any]) -> Any:
        """Return the result of a single input in the form that the Hub's pipeline gives it."""
        return result

    def prepare(self, inputs: Sequence[Input], options: Any) -> Sequence[Work | DataError]:
        """Turn inputs into sequences of tokens; of each what it is, or its fault."""
        read = [attempt(self.read, item, options) for item in inputs]
        encoded = iter(self.encode([content for content in read if not isinstance(content, DataError)], options))
        return [
            content if isinstance(content, DataError) else attempt(self.work, item, content, next(encoded), options)
            for item, content in zip(inputs, read, strict=True)
        ]

    def parse(self, where: str, line: str) -> Any:
        """Return what a line of text means as an input; where it is begins the message about a line that means none."""
        return line

    def read(self, item: Input, options: Any) -> Any:
        """Check one input and return what `encode` needs of it: here, a text.

        Raises:
            DataError: It is none.
        """
        return self.text_of(item, item.value)

    def encode(self, contents: Sequence[Any], options: Any) -> Iterable[Any]:
        """Tokenise many inputs at once, which uses all cores."""
        return self.tokenizer.encode_batch(contents, max_length=self.cut_at(options))

    def work(self, item: Input, content: Any, encoded: Any, options: Any) -> Work:
        """Return what `compute` needs of one input: here, its sequence.

        Raises:
            DataError: It cannot be computed.
        """
        input_ids = self.fitting(item, encoded, options)
        return Work(size=len(input_ids), content=input_ids)

    @abstractmethod
    def compute(self, works: Sequence[Work], options: Any) -> Sequence[Any]:
        """Run the model on one batch; a result for each."""

    def text_of(self, item: Input, value: Any, what: str = "a text") -> str:
        """Return a text.

        Raises:
            DataError: It is none.
        """
        if isinstance(value, str) and value.strip() and not _HALF_CHARACTER.search(value):
            return value
        raise DataError(f"{item.where}: {self.task} must have {what}, got {shown(value)}. Mend or remove the input.")

    def limit(self, options: Options) -> int:
        """Return how many tokens a sequence may have, special ones included."""
        config = self.model.config
        positions = config.max_position_embeddings - config.pad_token_id - 1
        return min(positions, options.max_length or positions)

    def cut_at(self, options: Options) -> int | None:
        """Return how many tokens to leave of a text that is too long; None: it is a fault."""
        return self.limit(options) if options.truncation else None

    def fitting(self, item: Input, input_ids: list[int], options: Options) -> list[int]:
        """Return a sequence that is not too long.

        Raises:
            DataError: It is.
        """
        if len(input_ids) <= self.limit(options):
            return input_ids
        raise DataError(
            f"{item.where}: {self.task} must have at most {self.limit(options)} tokens, special ones included, got "
            f"{len(input_ids)}. Shorten the input, or set truncation=True."
        )

    def run(
        self, sequences: Sequence[Sequence[int]], *, part: nn.Module | None = None, **arguments: Any
    ) -> ModelOutput:
        """Run the model, or a part of it, on sequences of tokens, packed."""
        device = self.model.device
        ids_T = torch.tensor([id_ for sequence in sequences for id_ in sequence])
        packed = PackedSequences.from_lengths([len(sequence) for sequence in sequences])
        with torch.no_grad():
            module = self.model if part is None else part
            output: ModelOutput = module(input_ids=ids_T.to(device), sequences=packed.to(device), **arguments)
        return output

    def run_batch(self, batch: Batch, task: Task) -> ModelOutput:
        """Run the model on the batch of a task, for predictions."""
        inputs = task.prediction_inputs(batch.to(self.model.device).inputs, bool)
        with torch.no_grad():
            output: ModelOutput = self.model(**inputs)
        return output

    def finite(self, outputs: Tensor) -> Tensor:
        """Return the model's outputs as they are.

        Raises:
            ConfigError: Some are not finite because the model's numbers leave the range of float16.
            CheckpointError: Some are not finite though the range is large enough.
        """
        if bool(torch.isfinite(outputs).all()):
            return outputs
        if self.model.dtype == torch.float16:
            raise ConfigError(
                f"dtype must hold the model's numbers, got float16, in which outputs of {self.task} are not finite. "
                "Use dtype=torch.bfloat16."
            )
        raise CheckpointError(
            f"model must give finite numbers, got others in {str(self.model.dtype).removeprefix('torch.')} for "
            f"{self.task}. Its weights are damaged, or its training diverged: take another checkpoint."
        )

    def _results(self, inputs: Iterable[Any], options: Options) -> Iterator[Any]:
        numbered = (Input(where=f"input {number}", value=value) for number, value in enumerate(inputs, start=1))
        for outcome in self.outcomes(numbered, options):
            if outcome.fault is not None:
                raise outcome.fault
            yield outcome.result

    def _showing(self, results: Iterator[Any], total: int | None) -> Iterator[Any]:
        with Console(enabled=sys.stderr.isatty()).count(self.task, total) as advance:
            for result in results:
                advance()
                yield result


@dataclass(frozen=True, slots=True)
class _Bound(Steps):
    """A pipeline with the options of one call."""

    pipeline: Pipeline
    options: Options

    def prepare(self, inputs: Sequence[Input]) -> Sequence[Work | DataError]:
        return self.pipeline.prepare(inputs, self.options)

    def compute(self, works: Sequence[Work]) -> Sequence[Any]:
        return self.pipeline.compute(works, self.options)
