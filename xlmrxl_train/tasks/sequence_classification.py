"""Sequence classification: a label, several labels or a number for a text or a pair of texts."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import torch

from xlmrxl_train.config import DatasetConfig, SequenceClassificationConfig
from xlmrxl_train.data.examples import Batch, Example, Feature, Row
from xlmrxl_train.data.files import shown
from xlmrxl_train.data.packing import pack
from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.errors import DataError
from xlmrxl_train.model import ModelOutput, PackedSequences, XLMRobertaXLForSequenceClassification
from xlmrxl_train.tasks.labels import IGNORED, Labels, options_of_classes
from xlmrxl_train.tasks.task import Prediction, Task, rounded


class SequenceClassification(Task):
    """Trains `XLMRobertaXLForSequenceClassification`; roles: text, text_pair (optional), label."""

    model_class: ClassVar[type] = XLMRobertaXLForSequenceClassification
    default_metrics: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1")
    metrics_of: ClassVar[dict[str, tuple[str, ...]]] = {  # where they are not the default ones
        "multi_label_classification": ("micro_f1", "multilabel_macro_f1"),
        "regression": ("pearson", "spearman"),
    }

    def __init__(self, config: SequenceClassificationConfig, dataset: DatasetConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, dataset, tokenizer)
        self.problem_type = config.problem_type
        self.class_weights = list(config.class_weights)
        self.labels = Labels(dataset)

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that suit the problem; the first one selects the checkpoint."""
        return list(self.dataset.metrics or self.metrics_of.get(self.problem_type, self.default_metrics))

    @property
    def chance_loss(self) -> float | None:
        """Return ln K, for one label of K that weigh alike."""
        single = self.problem_type == "single_label_classification" and not self.class_weights
        return math.log(len(self.dataset.labels)) if single else None

    @property
    def encoding(self) -> dict[str, Any]:
        """Add what the labels are: a class id, a row of 0 and 1, or a number."""
        return super().encoding | {"problem_type": self.problem_type}

    def model_options(self) -> dict[str, Any]:
        """Return number, names and weights of the classes."""
        return {
            "problem_type": self.problem_type,
            **options_of_classes(self.dataset.labels or ["score"]),
            "class_weights": self.class_weights or None,
        }

    def examples(self, rows: Iterable[Row]) -> Iterator[Example]:
        """Yield rows whose label is not to be skipped, with class ids for labels."""
        skipped = set(self.dataset.skip_labels)
        for row in rows:
            if self.labelled and str(row.values.get("label")) in skipped:
                continue
            roles = [role for role in ("text", "text_pair") if role in self.dataset.columns]
            values: dict[str, Any] = {role: self.text_of(row, role) for role in roles}
            values["label"] = self._label(row) if self.labelled else self.no_target()["label"]
            yield Example(id=row.id, values=values, where=row.where, language=row.language)

    def _label(self, row: Row) -> Any:
        raw = row.values.get("label")
        if self.problem_type == "regression":
            return self._number(row, raw)
        if self.problem_type == "multi_label_classification":
            present = {self._class_id(row, item) for item in _items(raw)}
            return [float(index in present) for index in range(len(self.dataset.labels))]
        return self._class_id(row, raw)

    def _number(self, row: Row, raw: Any) -> float:
        try:
            number = float(raw)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
        column = self.dataset.columns["label"]
        raise DataError(f"{row.where}: column {column!r} must hold a finite number, got {shown(raw)}. Mend the row.")

    def _class_id(self, row: Row, raw: Any) -> int:
        if (found := self.labels.find(raw)) is not None:
            return found
        raise DataError(
            f"{row.where}: label {self.labels.expected}, got {shown(raw)}. Mend the row, map it with "
            "dataset.label_values={<written>: <label>}, or leave such rows out with dataset.skip_labels=[...]."
        )

    def encode(self, examples: Sequence[Example]) -> list[list[Feature]]:
        """Tokenise text and pair as `<s> text </s></s> pair </s>`, truncated longest first."""
        texts = [example.values["text"] for example in examples]
        pairs = [example.values["text_pair"] for example in examples] if "text_pair" in self.dataset.columns else None
        encoded = self.tokenizer.encode_batch(texts, pairs, max_length=self.max_length)
        return [
            [Feature(example=0, input_ids=input_ids, columns={"label": example.values["label"]})]
            for input_ids, example in zip(encoded, examples, strict=True)
        ]

    def collate(self, features: Sequence[Feature], examples: list[tuple[int, int]], draw: int) -> Batch:
        """Pack sequences; targets are class ids, rows of 0 and 1, or numbers."""
        input_ids, position_ids = pack([feature.input_ids for feature in features], self.tokenizer.pad_token_id)
        labels = [feature.columns["label"] for feature in features]
        single = self.problem_type == "single_label_classification"
        targets = torch.tensor(labels, dtype=torch.int64 if single else torch.float32)
        return Batch(
            inputs={
                "input_ids": input_ids,
                "position_ids": position_ids,
                "sequences": PackedSequences.from_lengths([len(feature.input_ids) for feature in features]),
                "labels": targets,
            },
            examples=examples,
            num_tokens=len(input_ids),
            num_targets=self._weight(labels),
        )

    def _weight(self, labels: list[Any]) -> float:
        """Return the weight of the targets in the loss, as the model counts it."""
        if self.problem_type != "single_label_classification":
            return float(sum(len(label) if isinstance(label, list) else 1 for label in labels))
        weights = self.class_weights or [1.0] * len(self.dataset.labels)
        return float(sum(weights[label] for label in labels if label != IGNORED))

    def no_target(self) -> dict[str, Any]:
        """Return a label of the problem's kind; of a single class, the one that counts nothing."""
        if self.problem_type == "multi_label_classification":
            return {"label": [0.0] * len(self.dataset.labels)}
        return {"label": 0.0 if self.problem_type == "regression" else IGNORED}

    def predict(self, output: ModelOutput, batch: Batch, features: Sequence[Feature]) -> list[Prediction]:
        """Return class ids with the probability of each, lists of 0 and 1, or numbers."""
        assert output.logits is not None
        logits = output.logits.float().cpu()
        details: list[dict[str, Any]] = [{} for _ in logits]
        if self.problem_type == "single_label_classification":
            predictions = logits.argmax(-1).tolist()
            details = [{"confidence": rounded(value)} for value in logits.softmax(-1).amax(-1).tolist()]
        elif self.problem_type == "multi_label_classification":
            predictions = (logits > 0).long().tolist()
        else:
            predictions = logits.squeeze(-1).tolist()
        references = batch.inputs["labels"].tolist() if self.labelled else [None] * len(predictions)
        return [
            Prediction(table=table, example=example, prediction=prediction, reference=reference, details=detail)
            for (table, example), prediction, reference, detail in zip(
                batch.examples, predictions, references, details, strict=True
            )
        ]

    def describe(self, prediction: Prediction) -> dict[str, Any]:
        """Return names of classes with their probability, or numbers."""
        named = {"prediction": self._named(prediction.prediction), "reference": self._named(prediction.reference)}
        return named | prediction.details

    def _named(self, value: Any) -> Any:
        if value is None or self.problem_type == "regression":
            return value
        if self.problem_type == "multi_label_classification":
            return [name for name, present in zip(self.dataset.labels, value, strict=True) if present]
        return self.dataset.labels[value]


def _items(raw: Any) -> list[Any]:
    """Return the labels of a multi-label row: a list as it is, text split at commas."""
    if isinstance(raw, str):
        return [item.strip() for item in raw.split(",") if item.strip()]
    return raw if isinstance(raw, list) else [] if raw is None else [raw]
