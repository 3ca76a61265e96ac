"""Multiple choice: which of a few answers fits a question about a context. One sequence per choice, scored alone.

Source: context and question as the first text, the choice as the second, as XTREME-R's baseline has it
(google-research/xtreme, third_party/run_xcopa.py @ c061466856f8).
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from string import Formatter
from typing import Any, ClassVar

import torch

from xlmrxl_train.config import DatasetConfig, MultipleChoiceConfig
from xlmrxl_train.data.examples import Batch, Example, Feature, Row
from xlmrxl_train.data.files import shown
from xlmrxl_train.data.packing import pack
from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.errors import DataError
from xlmrxl_train.model import ModelOutput, PackedSequences, XLMRobertaXLForMultipleChoice
from xlmrxl_train.tasks.labels import IGNORED, Labels
from xlmrxl_train.tasks.task import Prediction, Task, rounded

ABSENT = -1  # in the model's choice_index: this example has fewer choices than others of the batch

Place = tuple[int, int]  # table, example


class MultipleChoice(Task):
    """Trains `XLMRobertaXLForMultipleChoice`; roles: context, question, choices or choice1, choice2, ..., label."""

    model_class: ClassVar[type] = XLMRobertaXLForMultipleChoice
    default_metrics: ClassVar[tuple[str, ...]] = ("accuracy",)

    def __init__(self, config: MultipleChoiceConfig, dataset: DatasetConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, dataset, tokenizer)
        self.choice_of = Labels(dataset).class_of  # without numbers: data sets count choices from 0 or from 1
        self.text_roles = [role for role in ("context", "question") if role in dataset.columns]
        self.templates = {
            "text": " ".join(f"{{{role}}}" for role in self.text_roles),
            "text_pair": "{choice}",
            **dataset.templates,
        }

    @property
    def chance_loss(self) -> float | None:
        """Return ln K for K choices."""
        return math.log(len(self.dataset.labels))

    @property
    def encoding(self) -> dict[str, Any]:
        """Add how texts are put together."""
        return super().encoding | {"templates": self.templates}

    def model_options(self) -> dict[str, Any]:
        """Return nothing: the head scores any number of choices."""
        return {}

    def examples(self, rows: Iterable[Row]) -> Iterator[Example]:
        """Yield rows whose label is not to be skipped, with the number of the right choice, from 0, for the label."""
        skipped = set(self.dataset.skip_labels)
        for row in rows:
            if self.labelled and str(row.values.get("label")) in skipped:
                continue
            values: dict[str, Any] = {role: self.text_of(row, role) for role in self.text_roles}
            values |= {"choices": self._choices(row), "label": self._label(row) if self.labelled else IGNORED}
            yield Example(id=row.id, values=values, where=row.where, language=row.language)

    def _choices(self, row: Row) -> list[str]:
        count = len(self.dataset.labels)
        if "choices" not in self.dataset.columns:
            return [self.text_of(row, f"choice{number + 1}") for number in range(count)]
        column, choices = self.dataset.columns["choices"], row.values.get("choices")
        if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
            raise DataError(
                f"{row.where}: column {column!r} must hold a list of texts, got {shown(choices)}. "
                "Mend the row, or name one column per choice with dataset.columns.choice1=<column> and so on."
            )
        if len(choices) != count:
            raise DataError(
                f"{row.where}: column {column!r} must hold {count} choices, one per label in dataset.labels, "
                f"got {len(choices)}. Mend the row, or set dataset.labels."
            )
        return choices

    def _label(self, row: Row) -> int:
        written = row.values.get("label")
        if str(written) not in self.choice_of:
            raise DataError(
                f"{row.where}: label must be one of {', '.join(self.choice_of)}, got {shown(written)}. "
                "Mend the row, write dataset.labels as the data set does, map it with "
                "dataset.label_values={<written>: <label>}, or leave such rows out with dataset.skip_labels=[...]."
            )
        return self.choice_of[str(written)]

    def encode(self, examples: Sequence[Example]) -> list[list[Feature]]:
        """Tokenise each choice as `<s> context question </s></s> choice </s>`; of one too long, the context is cut.

        Raises:
            DataError: Even without its context a choice is too long.
        """
        places = [(example, choice) for example in examples for choice in example.values["choices"]]
        texts = [self._filled("text", example, choice) for example, choice in places]
        pairs = [self._filled("text_pair", example, choice)[0] for example, choice in places]
        encoded = self.tokenizer.encode_batch([text for text, _ in texts], pairs)
        for index, input_ids in enumerate(encoded):
            if len(input_ids) > self.max_length:
                encoded[index] = self._shortened(*texts[index], pairs[index], places[index][0])
        count = len(self.dataset.labels)
        return [
            [
                Feature(example=0, input_ids=input_ids, columns={"choice": choice, "label": example.values["label"]})
                for choice, input_ids in enumerate(encoded[index * count : (index + 1) * count])
            ]
            for index, example in enumerate(examples)
        ]

    def _filled(self, template: str, example: Example, choice: str) -> tuple[str, tuple[int, int]]:
        """Return a text of a template, and where in it the context begins and ends."""
        values = {**example.values, "choice": choice}
        text, context = "", (0, 0)
        for literal, field, _, _ in Formatter().parse(self.templates[template]):
            text += literal
            if field is not None:
                text += values[field]
            if field == "context":
                context = (len(text) - len(values[field]), len(text))
        return text, context

    def _shortened(self, text: str, context: tuple[int, int], pair: str, example: Example) -> list[int]:
        """Return the ids of a text and its pair without as many of the context's last tokens as are too many."""
        output = self.tokenizer([text], [pair], return_offsets_mapping=True)
        input_ids, offsets = output["input_ids"][0], output["offset_mapping"][0]
        separator = (self.tokenizer.eos_token_id, (0, 0))  # text may hold the word </s>, which has a place in it
        end = list(zip(input_ids, offsets, strict=True)).index(separator)
        of_context = [
            index for index in range(1, end) if context[0] <= offsets[index][0] and offsets[index][1] <= context[1]
        ]
        excess = len(input_ids) - self.max_length
        if len(of_context) < excess:
            raise DataError(
                f"{example.where}: question and choice must fit into task.max_length={self.max_length} tokens, got "
                f"{len(input_ids) - len(of_context)} without the context, which alone may be cut. "
                "Raise task.max_length, or shorten the row."
            )
        dropped = set(of_context[-excess:])
        return [id_ for index, id_ in enumerate(input_ids) if index not in dropped]

    def collate(self, features: Sequence[Feature], examples: list[Place], draw: int) -> Batch:
        """Pack sequences in any order; `choice_index` says which one is which choice of which example."""
        input_ids, position_ids = pack([feature.input_ids for feature in features], self.tokenizer.pad_token_id)
        grouped = list(_grouped(features, examples).values())
        width = max(map(len, grouped))
        labels = [features[choices[0]].columns["label"] for choices in grouped]
        return Batch(
            inputs={
                "input_ids": input_ids,
                "position_ids": position_ids,
                "sequences": PackedSequences.from_lengths([len(feature.input_ids) for feature in features]),
                "choice_index": torch.tensor([choices + [ABSENT] * (width - len(choices)) for choices in grouped]),
                "labels": torch.tensor(labels),
            },
            examples=examples,
            num_tokens=len(input_ids),
            num_targets=float(sum(label != IGNORED for label in labels)),
        )

    def no_target(self) -> dict[str, Any]:
        """Return a choice that is the only one, with the label that counts nothing."""
        return {"choice": 0, "label": IGNORED}

    def predict(self, output: ModelOutput, batch: Batch, features: Sequence[Feature]) -> list[Prediction]:
        """Return the number of the choice with the highest score, from 0."""
        assert output.logits is not None
        grouped = _grouped(features, batch.examples)
        logits, labels = output.logits.float().cpu(), batch.inputs["labels"].tolist()
        best = logits.argmax(-1).tolist()
        confidence = logits.softmax(-1).amax(-1).tolist()
        return [
            Prediction(
                table=table,
                example=example,
                prediction=best[row],
                reference=labels[row] if self.labelled else None,
                details={"scores": logits[row, : len(choices)].tolist(), "confidence": rounded(confidence[row])},
            )
            for row, (((table, example), _), choices) in enumerate(grouped.items())
        ]

    def describe(self, prediction: Prediction) -> dict[str, Any]:
        """Return choices as the data set writes them, the score of each, and the probability of the one chosen."""
        labels = self.dataset.labels
        reference = None if prediction.reference is None else labels[prediction.reference]
        return {"prediction": labels[prediction.prediction], "reference": reference, **prediction.details}


def _grouped(features: Sequence[Feature], examples: Sequence[Place]) -> dict[tuple[Place, int], list[int]]:
    """Return the positions of each example's choices, in the order of the choices.

    A batch may hold an example twice, where training draws with replacement; the second one is another key.
    """
    places = examples or [(0, 0)] * len(features)  # a batch without targets belongs to no example
    seen: Counter[tuple[Place, int]] = Counter()
    positions: dict[tuple[Place, int], dict[int, int]] = {}
    for position, (place, feature) in enumerate(zip(places, features, strict=True)):
        choice = feature.columns["choice"]
        positions.setdefault((place, seen[place, choice]), {})[choice] = position
        seen[place, choice] += 1
    return {key: [choices[number] for number in range(len(choices))] for key, choices in positions.items()}
