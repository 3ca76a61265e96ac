"""Find translations by the nearness of sentence vectors, without training: Tatoeba's pairs, and BUCC's mining.

With the role text_pair every row is a sentence and its translation, and each sentence looks for its own among those of
the other side. With the role gold every row is a sentence of one side, most of them without a translation, and pairs
are mined; the threshold of their score is the best one on the validation split.

Source: google-research/xtreme third_party/evaluate_retrieval.py @ 4e6401c6888c and utils_retrieve.py @ 4940374c9121.
XTREME's script numbers layers from 0 without the embeddings: its "13 of 24" for XLM-R large is hidden_states[14].
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from xlmrxl_train.config import DatasetConfig, RetrievalConfig
from xlmrxl_train.data.examples import Batch, Example, Feature, Row
from xlmrxl_train.data.files import shown
from xlmrxl_train.data.packing import pack
from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.errors import DataError
from xlmrxl_train.metrics.mining import best_threshold
from xlmrxl_train.model import ModelOutput, PackedSequences, XLMRobertaXLSentenceEncoder
from xlmrxl_train.tasks.nearest import Candidates, mine, neighbours, normalised
from xlmrxl_train.tasks.task import Prediction, Task

SIDES = ("source", "target")
MIDDLE = 7 / 12  # of the layers: XTREME's choice for XLM-R large, hidden_states[14] of 24


class Retrieval(Task):
    """Reads `XLMRobertaXLSentenceEncoder`; roles: text and text_pair, or text, side and gold."""

    model_class: ClassVar[type] = XLMRobertaXLSentenceEncoder
    trains: ClassVar[bool] = False
    decides_together: ClassVar[bool] = True

    def __init__(self, config: RetrievalConfig, dataset: DatasetConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, dataset, tokenizer)
        self.layer, self.pooling, self.neighbours = config.layer, config.pooling, config.neighbours
        self.mines = "gold" in dataset.columns
        self.thresholds: dict[str, float] = {}  # by language, from the validation split

    @property
    def metrics(self) -> list[str]:
        """Both directions' accuracy, or the F1 of mined pairs."""
        return list(
            self.dataset.metrics or (["mining_f1"] if self.mines else ["accuracy_forward", "accuracy_backward"])
        )

    @property
    def encoding(self) -> dict[str, Any]:
        """Add whether sentences come in pairs."""
        return super().encoding | {"mines": self.mines}

    def model_options(self) -> dict[str, Any]:
        """Return nothing: there is no head."""
        return {}

    def examples(self, rows: Iterable[Row]) -> Iterator[Example]:
        """Yield every row; an empty sentence is looked for like any other, so that no line is lost."""
        for row in rows:
            values = {role: self.text_of(row, role) for role in self.dataset.columns}
            if self.mines and values["side"] not in SIDES:
                raise DataError(
                    f"{row.where}: column {self.dataset.columns['side']!r} must be source or target, "
                    f"got {shown(values['side'])}. Mend the row."
                )
            yield Example(id=row.id, values=values, where=row.where, language=row.language)

    def encode(self, examples: Sequence[Example]) -> list[list[Feature]]:
        """Tokenise each sentence by itself: two features of a pair, one of a sentence that waits to be mined."""
        texts = self.tokenizer.encode_batch([example.values["text"] for example in examples], None, self.max_length)
        if not self.mines:
            pairs = [example.values["text_pair"] for example in examples]
            others = self.tokenizer.encode_batch(pairs, None, self.max_length)
            return [
                [Feature(example=0, input_ids=ids, columns={"side": side}) for side, ids in enumerate(both)]
                for both in zip(texts, others, strict=True)
            ]
        return [[Feature(example=0, input_ids=ids, columns=_columns(example))]
                for ids, example in zip(texts, examples, strict=True)]  # fmt: skip

    def collate(self, features: Sequence[Feature], examples: list[tuple[int, int]], draw: int) -> Batch:
        """Pack sentences."""
        input_ids, position_ids = pack([feature.input_ids for feature in features], self.tokenizer.pad_token_id)
        return Batch(
            inputs={
                "input_ids": input_ids,
                "position_ids": position_ids,
                "sequences": PackedSequences.from_lengths([len(feature.input_ids) for feature in features]),
                "layer": MIDDLE if self.layer is None else self.layer,
                "pooling": self.pooling,
            },
            examples=examples,
            num_tokens=len(input_ids),
            num_targets=0.0,
        )

    def no_target(self) -> dict[str, Any]:
        """Return nothing: there are no targets."""
        return {}

    def predict(self, output: ModelOutput, batch: Batch, features: Sequence[Feature]) -> list[Prediction]:
        """Return each example's vectors, [sides, D]; what they mean is decided when all are there."""
        assert output.pooler_output is not None
        vectors = output.pooler_output.cpu().numpy()
        of_example: dict[tuple[int, int], list[int]] = {}
        for row, place in enumerate(batch.examples):
            of_example.setdefault(place, []).append(row)
        predictions = []
        for (table, example), rows in of_example.items():
            rows.sort(key=lambda row: features[row].columns["side"])
            predictions.append(
                Prediction(
                    table=table, example=example, prediction=vectors[rows], reference=None,
                    details=dict(features[rows[0]].columns),
                )
            )  # fmt: skip
        return predictions

    def decide(self, predictions: list[Prediction], split: str, language: str) -> list[Prediction]:
        """Find each sentence's nearest of the other side, or mine pairs."""
        predictions = sorted(predictions, key=lambda item: item.example)
        if self.mines:
            self._mine(predictions, split, language)
            return predictions
        source_ND, target_ND = (
            normalised(np.stack([item.prediction[side] for item in predictions])) for side in range(len(SIDES))
        )
        forward, backward = neighbours(source_ND, target_ND, 1)[1][:, 0], neighbours(target_ND, source_ND, 1)[1][:, 0]
        for item, found, back in zip(predictions, forward.tolist(), backward.tolist(), strict=True):
            item.prediction, item.reference, item.details = [found, back], item.example, {}
        return predictions

    def _mine(self, predictions: list[Prediction], split: str, language: str) -> None:
        """Enter for each source the targets mined for it."""
        sides = [_Side([item for item in predictions if item.details["side"] == side]) for side in range(len(SIDES))]
        source, target = sides
        found = mine(source.vectors, target.vectors, self.neighbours)
        single = [place for place in range(len(found.score))
                  if source.is_single(found.source[place]) and target.is_single(found.target[place])]  # fmt: skip
        found = Candidates(source=found.source[single], target=found.target[single], score=found.score[single])
        pairs = [(source.items[i], target.items[j]) for i, j in zip(found.source, found.target, strict=True)]
        if split == "validation":
            right = [left.details["gold"] == other.details["name"] for left, other in pairs]
            num_gold = sum(bool(item.details["gold"]) for item in predictions if item.details["side"] == 0)
            self.thresholds[language] = best_threshold(found.score.tolist(), right, num_gold)
        mined = {
            left.example: other.details["name"]
            for (left, other), score in zip(pairs, found.score.tolist(), strict=True)
            if score >= self.thresholds.get(language, 0.0)
        }
        for item in predictions:
            gold = item.details["gold"] if item.details["side"] == 0 else ""
            item.prediction = [mined[item.example]] if item.example in mined else []
            item.reference = [gold] if gold else []
        for item in predictions:
            item.details = {"side": SIDES[item.details["side"]]}

    @property
    def notes(self) -> list[str]:
        """Say which vectors were compared, without which a score says little."""
        layer = "the layer 7/12 of the way up" if self.layer is None else f"layer {self.layer}"
        vectors = "mean over tokens" if self.pooling == "mean" else "first token"
        search = f"ratio margin, {self.neighbours} neighbours" if self.mines else "cosine"
        return [f"no training; sentence vectors: {vectors} of {layer}; {search}"]


class _Side:
    """The sentences of one side, each text once."""

    def __init__(self, predictions: list[Prediction]) -> None:
        first: dict[str, Prediction] = {}
        for item in predictions:
            first.setdefault(item.details["text_hash"], item)
        self._counts = Counter(item.details["text_hash"] for item in predictions)
        self.items = list(first.values())
        self.vectors = normalised(np.concatenate([item.prediction for item in self.items]))

    def is_single(self, index: int) -> bool:
        """Whether no other sentence has this text: of several it could not be said which one was found."""
        return self._counts[self.items[index].details["text_hash"]] == 1


def _columns(example: Example) -> dict[str, Any]:
    text = example.values["text"].strip()
    return {
        "side": SIDES.index(example.values["side"]),
        "gold": example.values["gold"],
        "name": example.id.partition("/")[2] or example.id,
        "text_hash": hashlib.sha256(text.encode()).hexdigest()[:16],
    }
