"""What flows from a data set to the model: a row in the data set's words, an example, its features, a batch.

Source --rows--> Row --task.examples--> Example --task.encode--> Feature --cache--> FeatureTable
       --plan--> positions --task.collate--> Batch --> model
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class SentencePlace(str):
    """Where a sentence begins, "file:12", which also knows where each of its tokens stands."""

    lines: list[int]

    def __new__(cls, path: object, first: int, lines: list[int]) -> "SentencePlace":
        """Make the place of a sentence.

        Args:
            path: Of the file.
            first: Line, from 1, on which the sentence's block begins.
            lines: Line of each token.
        """
        place = super().__new__(cls, f"{path}:{first}")
        place.lines = lines
        return place


def place_of_token(where: str, index: int) -> str:
    """Return the place of a token, counted from 0, of a row at `where`: its own line where that is known."""
    if isinstance(where, SentencePlace):
        return f"{where.rpartition(':')[0]}:{where.lines[index]}"
    return f"{where}, token {index + 1}"


@dataclass(kw_only=True, slots=True)
class Row:
    """One record of a source: role -> value, under the roles of `dataset.columns`."""

    id: str
    values: dict[str, Any]
    where: str  # "file.tsv:12" or "owner/name/en/train row 11": begins every message about this row
    language: str = ""  # code, as the data set writes it


@dataclass(kw_only=True, slots=True)
class Example:
    """A row that a task has checked: its label is a class id, its texts are text."""

    id: str  # unique within one split and language; parallel examples share it across languages
    values: dict[str, Any]
    where: str
    language: str = ""


@dataclass(kw_only=True, slots=True)
class Feature:
    """One sequence that the model reads. An example has one, or several windows or choices."""

    example: int  # position of its example within its split and language
    input_ids: list[int]  # special tokens included
    columns: dict[str, Any] = field(default_factory=dict)  # what collate and predict need beside: label, offsets, ...


@dataclass(kw_only=True, slots=True)
class Batch:
    """What one forward pass needs, and what the loop must know about it without looking at the device."""

    inputs: dict[str, Any]  # keyword arguments of the model's forward: tensors and a PackedSequences
    examples: list[tuple[int, int]]  # (table, example) of each row of predictions, in the batch's order
    num_tokens: int  # real tokens
    num_targets: float  # weight of the targets in the loss

    def to(self, device: "torch.device") -> "Batch":
        """Return the batch with its tensors on `device`, copied without waiting."""
        moved = {
            name: value.to(device, non_blocking=True) if hasattr(value, "to") else value
            for name, value in self.inputs.items()
        }
        return Batch(inputs=moved, examples=self.examples, num_tokens=self.num_tokens, num_targets=self.num_targets)
