"""What a kind of problem is: a row -> an example -> features -> a batch -> predictions and references."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, ClassVar

from xlmrxl_train.config import DatasetConfig, TaskConfig
from xlmrxl_train.data.examples import Batch, Example, Feature, Row
from xlmrxl_train.data.files import shown
from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.errors import DataError
from xlmrxl_train.model import ModelOutput

SHOWN_LETTERS = 500  # of each text of an example, in files of predictions


def rounded(probability: float) -> float:
    """Return a probability as files of predictions show it: three digits."""
    return float(f"{probability:.3g}")


@dataclass(kw_only=True, slots=True)
class Prediction:
    """What the model says of one example, beside the truth, both as the task's metrics read them."""

    table: int  # which split and language
    example: int  # position in it
    prediction: Any
    reference: Any
    details: dict[str, Any] = field(default_factory=dict)  # what `describe` shows beside: choices, windows, scores


class Task(ABC):
    """One kind of problem. A data set of the kind is a YAML file, not a class."""

    model_class: ClassVar[type]  # the public model whose head it trains
    default_metrics: ClassVar[tuple[str, ...]]
    encoding_version: ClassVar[int] = 1  # raised when `encode` changes, so that cached features are made again
    learns_from_labels: ClassVar[bool] = True  # False: from text alone, so that no label of a language is used
    trains: ClassVar[bool] = True  # False: the encoder is used as it is, and a run only evaluates
    trains_all_words: ClassVar[bool] = False  # True: also words that no feature has, by an output matrix
    decides_together: ClassVar[bool] = False  # True: `decide` sees all predictions of a language before they are scored
    describes_texts: ClassVar[bool] = False  # True: what the model read is in `describe` already

    def __init__(self, config: TaskConfig, dataset: DatasetConfig, tokenizer: Tokenizer) -> None:
        self.dataset = dataset
        self.tokenizer = tokenizer
        self.max_length = config.max_length
        self.labelled = True  # False: no gold label is read, references are None, and nothing is scored

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics; the first one selects the checkpoint."""
        return list(self.dataset.metrics or self.default_metrics)

    @property
    def chance_loss(self) -> float | None:
        """Return the mean loss of guessing, ln K among K classes that are equally frequent; None: there is no such."""
        return None

    @property
    def encoding(self) -> dict[str, Any]:
        """Everything beside rows and tokenizer that features depend on."""
        return {
            "task": type(self).__name__,
            "version": self.encoding_version,
            "max_length": self.max_length,
            "labelled": self.labelled,
            "labels": list(self.dataset.labels),
            "label_values": dict(self.dataset.label_values),
            "skip_labels": list(self.dataset.skip_labels),
        }

    def text_of(self, row: Row, role: str) -> str:
        """Return the text that a row has under a role.

        Raises:
            DataError: It has none.
        """
        text = row.values.get(role)
        if not isinstance(text, str):
            raise DataError(
                f"{row.where}: column {self.dataset.columns[role]!r} must hold text, got {shown(text)}. "
                f"Mend the row, or map another column with dataset.columns.{role}=<column>."
            )
        return text

    @abstractmethod
    def model_options(self) -> dict[str, Any]:
        """Return the keys of the model's configuration that the task decides, as the Hub names them."""

    @abstractmethod
    def examples(self, rows: Iterable[Row]) -> Iterator[Example]:
        """Check rows and yield an example for each that counts.

        Raises:
            DataError: A row lacks a value or has one of the wrong kind; the message begins with file and line.
        """

    @abstractmethod
    def encode(self, examples: Sequence[Example]) -> list[list[Feature]]:
        """Tokenise examples: the features of each, in order. `Feature.example` is set by the caller's count."""

    @abstractmethod
    def collate(self, features: Sequence[Feature], examples: list[tuple[int, int]], draw: int) -> Batch:
        """Pack features, longest first, into a batch.

        Args:
            features: Sequences in the order in which they will lie in the batch.
            examples: (table, example) of each row of predictions.
            draw: Which random draw (of masks, say) to make: the epoch in training, 0 in evaluation.
        """

    def prediction_inputs(self, inputs: dict[str, Any], any_rank: Callable[[bool], bool]) -> dict[str, Any]:
        """Return what the model is to be called with for predictions: what training calls it with, by default.

        Args:
            inputs: Of a batch, on the device.
            any_rank: Whether a flag is set on any rank; each rank asks equally often. For a model that runs its layers
                as often as its own output demands.
        """
        return inputs

    @abstractmethod
    def predict(self, output: ModelOutput, batch: Batch, features: Sequence[Feature]) -> list[Prediction]:
        """Read predictions off one forward pass, one per example.

        Args:
            output: Of the model.
            batch: What it was given; `batch.examples` says whose each feature is.
            features: The batch's, in its order; all features of an example are in one batch.
        """

    def decide(self, predictions: list[Prediction], split: str, language: str) -> list[Prediction]:
        """Return the predictions of a whole split and language, decided together; only if `decides_together`."""
        return predictions

    @property
    def notes(self) -> list[str]:
        """Return what else must be known to compare its scores, for reports."""
        return []

    def describe(self, prediction: Prediction) -> dict[str, Any]:
        """Return what a file of predictions shows of one, in words that JSON can hold."""
        return {"prediction": prediction.prediction, "reference": prediction.reference, **prediction.details}

    def outcomes(self, value: Any) -> list[str]:
        """Return what a prediction, or a reference, says, to see whether all say the same."""
        return [repr(value)]

    def texts(self, features: Sequence[Feature]) -> list[str]:
        """Return what the model read of an example: each text of a pair, each of several choices, none twice."""
        special = {self.tokenizer.bos_token_id, self.tokenizer.eos_token_id}
        parts = [
            tuple(ids)
            for feature in features
            for is_special, ids in groupby(feature.input_ids, special.__contains__)
            if not is_special
        ]
        texts = (self.tokenizer.decode(list(ids)).strip() for ids in dict.fromkeys(parts))
        return [text if len(text) <= SHOWN_LETTERS else f"{text[:SHOWN_LETTERS]}..." for text in texts]

    def empty_batch(self) -> Batch:
        """Return a batch of one sequence without targets, for a rank that has no work in a micro-batch."""
        tokens = [self.tokenizer.bos_token_id, self.tokenizer.eos_token_id]
        batch = self.collate([Feature(example=0, input_ids=tokens, columns=self.no_target())], [], draw=0)
        batch.num_targets = 0.0
        return batch

    @abstractmethod
    def no_target(self) -> dict[str, Any]:
        """Return the columns of a feature whose loss is finite; the loop multiplies it by 0."""
