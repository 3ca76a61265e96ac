"""Token classification: a tag for every word of a sentence.

A sentence is a list of words. As XTREME encodes PAN-X and UDPOS:

- each word is tokenised by itself; its first sub-word has its tag, the others have none;
- a word without a sub-word, or with more than fit into a sequence, becomes <unk>, and keeps its tag;
- a sequence holds at most max_length - 3 sub-words; with one more, the word that has it begins the next sequence of the
  same sentence, so that no word is cut, and the tags of all its sequences are joined again before they are scored.

XTREME's third special token is a second </s>; here a sequence is <s> words </s>, as XLM-R was trained, and as
transformers encodes for the models that a run exports, but is cut where XTREME cuts.

With task.long=truncate only the first of these sequences is read. Its sentence is scored whole nevertheless: words that
were not read count as predicted O, hence as missed entities, as wrong part-of-speech tags, and as right only where a
data set's tag accuracy has O for gold. (XTREME's encoder, which truncates what its preparation did not split, leaves
such words out of the score.)

Source: google-research/xtreme, `panx_tokenize_preprocess` and `udpos_tokenize_preprocess` of utils_preprocess.py at
09182488, `convert_examples_to_features` of third_party/utils_tag.py at d224426a. Unlike `udpos_preprocess` there,
spaces and zero-width non-joiners stay in a word of a treebank.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from xlmrxl_train.config import DatasetConfig, TokenClassificationConfig
from xlmrxl_train.data.examples import Batch, Example, Feature, Row, place_of_token
from xlmrxl_train.data.files import shown
from xlmrxl_train.data.packing import pack
from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.errors import DataError
from xlmrxl_train.model import ModelOutput, PackedSequences, XLMRobertaXLForTokenClassification
from xlmrxl_train.tasks.labels import IGNORED, Labels, options_of_classes
from xlmrxl_train.tasks.task import Prediction, Task

UNREAD = "O"  # the predicted tag of a word that truncation dropped
_NUM_SPECIAL_TOKENS = 3  # as XTREME counts them


class TokenClassification(Task):
    """Trains `XLMRobertaXLForTokenClassification`; roles: tokens, tags.

    A feature is one sequence of a sentence. Its columns: `tokens` and `tags` (class ids; empty where there is no gold)
    of its words, `word_starts`, the position of the first sub-word of each word that was read, and `first_word`, its
    first word's position in the sentence.
    """

    model_class: ClassVar[type] = XLMRobertaXLForTokenClassification
    default_metrics: ClassVar[tuple[str, ...]] = ("entity_f1",)
    describes_texts: ClassVar[bool] = True

    def __init__(self, config: TokenClassificationConfig, dataset: DatasetConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, dataset, tokenizer)
        self.long = config.long
        self.labels = Labels(dataset)

    @property
    def encoding(self) -> dict[str, Any]:
        """Add what becomes of long sentences."""
        return super().encoding | {"long": self.long}

    def model_options(self) -> dict[str, Any]:
        """Return number and names of the tags; weights of another task's classes do not count here."""
        return {**options_of_classes(self.labels.names), "class_weights": None}

    def examples(self, rows: Iterable[Row]) -> Iterator[Example]:
        """Yield every sentence, with class ids for tags."""
        for row in rows:
            tokens = self._tokens(row)
            tags = self._tags(row, tokens) if self.labelled else []
            yield Example(id=row.id, values={"tokens": tokens, "tags": tags}, where=row.where, language=row.language)

    def _tokens(self, row: Row) -> list[str]:
        raw = row.values.get("tokens")
        if isinstance(raw, list) and raw and all(isinstance(word, str) for word in raw):
            return raw
        raise DataError(
            f"{row.where}: column {self.dataset.columns['tokens']!r} must hold a list of words, at least one, "
            f"got {shown(raw)}. Mend the row, or map another column with dataset.columns.tokens=<column>."
        )

    def _tags(self, row: Row, tokens: list[str]) -> list[int]:
        raw = row.values.get("tags")
        if not isinstance(raw, list) or len(raw) != len(tokens):
            found = f"{len(raw)}: {shown(raw)}" if isinstance(raw, list) else shown(raw)
            raise DataError(
                f"{row.where}: column {self.dataset.columns['tags']!r} must hold a list of {len(tokens)} tags, one per "
                f"word, got {found}. Mend the row, or map another column with dataset.columns.tags=<column>."
            )
        return [self._tag(row, tokens, index, tag) for index, tag in enumerate(raw)]

    def _tag(self, row: Row, tokens: list[str], index: int, raw: object) -> int:
        if (found := self.labels.find(raw)) is not None:
            return found
        raise DataError(
            f"{place_of_token(row.where, index)}: the tag of {shown(tokens[index])} {self.labels.expected}, got "
            f"{shown(raw)}. Mend the row, map it with dataset.label_values={{<written>: <label>}}, or add it to "
            "dataset.labels."
        )

    def encode(self, examples: Sequence[Example]) -> list[list[Feature]]:
        """Tokenise every word that occurs once, and lay the words of each sentence into one or several sequences."""
        words = list(dict.fromkeys(word for example in examples for word in example.values["tokens"]))
        window = self.max_length - _NUM_SPECIAL_TOKENS
        unknown = [self.tokenizer.unk_token_id]
        pieces_of = {
            word: input_ids[1:-1] if 0 < len(input_ids) - 2 <= window else unknown
            for word, input_ids in zip(words, self.tokenizer.encode_batch(words), strict=True)
        }
        return [self._features(example, pieces_of, window) for example in examples]

    def _features(self, example: Example, pieces_of: dict[str, list[int]], window: int) -> list[Feature]:
        tokens, tags = example.values["tokens"], example.values["tags"]
        parts = split([len(pieces_of[word]) for word in tokens], window)
        kept = parts[:1] if self.long == "truncate" else parts
        features = []
        for begin, end in kept:
            input_ids, word_starts = [self.tokenizer.bos_token_id], []
            for word in tokens[begin:end]:
                word_starts.append(len(input_ids))
                input_ids += pieces_of[word]
            input_ids.append(self.tokenizer.eos_token_id)
            shown_end = len(tokens) if len(kept) < len(parts) else end  # dropped words are scored too
            columns = {
                "tokens": tokens[begin:shown_end],
                "tags": tags[begin:shown_end],
                "word_starts": word_starts,
                "first_word": begin,
            }
            features.append(Feature(example=0, input_ids=input_ids, columns=columns))
        return features

    def collate(self, features: Sequence[Feature], examples: list[tuple[int, int]], draw: int) -> Batch:
        """Pack sequences; the targets are the class ids at the first sub-words."""
        input_ids, position_ids = pack([feature.input_ids for feature in features], self.tokenizer.pad_token_id)
        labels = np.full(len(input_ids), IGNORED, dtype=np.int64)
        for positions, feature in zip(_word_positions(features), features, strict=True):
            tags = feature.columns["tags"][: len(positions)]
            labels[positions[: len(tags)]] = tags  # no tag at all without gold
        return Batch(
            inputs={
                "input_ids": input_ids,
                "position_ids": position_ids,
                "sequences": PackedSequences.from_lengths([len(feature.input_ids) for feature in features]),
                "labels": torch.from_numpy(labels),
            },
            examples=examples,
            num_tokens=len(input_ids),
            num_targets=float((labels != IGNORED).sum()),
        )

    def no_target(self) -> dict[str, Any]:
        """Return no word."""
        return {"tokens": [], "tags": [], "word_starts": [], "first_word": 0}

    def outcomes(self, value: list[str]) -> list[str]:
        """Return its tags: sentences have different numbers of them."""
        return value

    def predict(self, output: ModelOutput, batch: Batch, features: Sequence[Feature]) -> list[Prediction]:
        """Return the tags of all words of each sentence, by name, and the words beside."""
        assert output.logits is not None
        positions = _word_positions(features)
        rows = torch.from_numpy(np.concatenate(positions)).to(output.logits.device)
        classes = output.logits[rows].argmax(-1).cpu().numpy()
        guesses = np.split(classes, np.cumsum([len(part) for part in positions])[:-1])
        parts_of: dict[tuple[int, int], list[tuple[Feature, list[int]]]] = {}
        for place, feature, guess in zip(batch.examples, features, guesses, strict=True):
            parts_of.setdefault(place, []).append((feature, guess.tolist()))
        return [self._joined(table, example, parts) for (table, example), parts in parts_of.items()]

    def _joined(self, table: int, example: int, parts: list[tuple[Feature, list[int]]]) -> Prediction:
        """Return the prediction of a sentence, whose sequences come in any order."""
        parts = sorted(parts, key=lambda part: part[0].columns["first_word"])
        tokens = [word for feature, _ in parts for word in feature.columns["tokens"]]
        read = [self.labels.names[index] for _, guess in parts for index in guess]
        gold = [self.labels.names[index] for feature, _ in parts for index in feature.columns["tags"]]
        return Prediction(
            table=table,
            example=example,
            prediction=read + [UNREAD] * (len(tokens) - len(read)),
            reference=gold if self.labelled else None,
            details={"tokens": tokens},
        )


def split(lengths: Sequence[int], window: int) -> list[tuple[int, int]]:
    """Cut a sentence between its words into parts of at most `window` sub-words, each as long as it can be.

    Args:
        lengths: Sub-words of each word, none above `window`.
        window: Sub-words of a part.

    Returns:
        First word and word after the last of each part.
    """
    begins, room = [0], window
    for index, length in enumerate(lengths):
        if length > room:
            begins.append(index)
            room = window
        room -= length
    return list(zip(begins, [*begins[1:], len(lengths)], strict=True))


def _word_positions(features: Sequence[Feature]) -> list[np.ndarray]:
    """Return, for each feature of a batch, where in the batch the first sub-words of its words are."""
    lengths = [len(feature.input_ids) for feature in features]
    starts = np.cumsum([0, *lengths[:-1]])
    return [
        start + np.array(feature.columns["word_starts"], dtype=np.int64)
        for start, feature in zip(starts, features, strict=True)
    ]
