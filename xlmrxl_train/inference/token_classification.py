"""Token classification: a tag for every token of a text or every word of a list, alone or in groups.

Of a text each token gets a tag, and `aggregation_strategy` makes words and entities of them as transformers does; other
than there, the words of an entity found with first, max or average are written with blanks between them, and a text
longer than the model's positions is cut between words and read to its end. Of a list of words (is_split_into_words)
each word is tokenised by itself and has the tag of its first token, as in training (`tasks.token_classification`).

Source: transformers 5.23, pipelines/token_classification.py (words, groups, what a sub-word is).

Suffixes: T tokens of a batch, U units, C classes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from xlmrxl_train.data.files import shown
from xlmrxl_train.errors import DataError
from xlmrxl_train.inference.base import Options, Pipeline, one_of, texts, yes_or_no
from xlmrxl_train.inference.streaming import Input, Work
from xlmrxl_train.model import PreTrained, XLMRobertaXLForTokenClassification
from xlmrxl_train.tasks.token_classification import split

STRATEGIES = ("none", "simple", "first", "max", "average")

Entity = dict[str, Any]


@dataclass(kw_only=True, frozen=True)
class TokenClassificationOptions(Options):
    """Options of token-classification."""

    aggregation_strategy: str = "none"
    """none: tokens; simple: neighbours of one kind together; first, max, average: words first, then neighbours."""
    ignore_labels: Sequence[str] = ("O",)
    """Tags that are left out."""
    is_split_into_words: bool = False
    """Whether inputs are lists of words."""

    def faults(self) -> list[str]:
        """Return what is wrong with the values."""
        faults = super().faults() + one_of("aggregation_strategy", self.aggregation_strategy, STRATEGIES)
        faults += texts("ignore_labels", self.ignore_labels)
        return faults + yes_or_no("is_split_into_words", self.is_split_into_words)


@dataclass(kw_only=True, slots=True)
class Unit:
    """What gets a tag: a token of a text, or a word of a list."""

    index: int  # of the token in the text's sequence, as the Hub counts; of the word in the list
    word: str  # the token as the vocabulary has it, or the word
    begin: int  # characters
    end: int
    continues: bool  # whether it goes on with the word of the unit before
    tokens: list[int]  # the first of them has the tag


@dataclass(kw_only=True, slots=True)
class Tagged:
    """The sequences of an input, and where in them its units are."""

    units: list[Unit]
    sequences: list[list[int]]
    places: list[int]  # of each unit: its first token in all sequences, one after the other


class TokenClassification(Pipeline):
    """Returns entity (entity_group with aggregation), score, word, start and end of each unit or group."""

    task: ClassVar[str] = "token-classification"
    model_class: ClassVar[type[PreTrained]] = XLMRobertaXLForTokenClassification
    options_class: ClassVar[type[Options]] = TokenClassificationOptions

    def is_one(self, inputs: Any, options: TokenClassificationOptions) -> bool:
        """Return whether this is one text, or one list of words."""
        if options.is_split_into_words:
            return isinstance(inputs, list | tuple) and bool(inputs) and isinstance(inputs[0], str)
        return super().is_one(inputs, options)

    def read(self, item: Input, options: TokenClassificationOptions) -> Any:
        """Return a text, or a list of words."""
        words = item.value
        if not options.is_split_into_words:
            return self.text_of(item, words)
        if isinstance(words, list | tuple) and words and all(isinstance(word, str) for word in words):
            return words
        raise DataError(
            f"{item.where}: token-classification with is_split_into_words must have a list of words, at least one, got "
            f"{shown(words)}. Mend or remove the input."
        )

    def encode(self, contents: Sequence[Any], options: TokenClassificationOptions) -> Iterable[list[Unit]]:
        """Tokenise texts, or every word that occurs once."""
        if options.is_split_into_words:
            words = list(dict.fromkeys(word for content in contents for word in content))
            pieces = dict(zip(words, (ids[1:-1] for ids in self.tokenizer.encode_batch(words)), strict=True))
            room, unknown = self.limit(options) - 2, [self.tokenizer.unk_token_id]
            tokens_of = {word: ids if 0 < len(ids) <= room else unknown for word, ids in pieces.items()}
            return [_units_of_words(content, tokens_of) for content in contents]
        encoded = self.tokenizer(list(contents), return_offsets_mapping=True)
        pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        return [self._units(text, *pair) for text, pair in zip(contents, pairs, strict=True)]

    def _units(self, text: str, input_ids: list[int], offsets: list[tuple[int, int]]) -> list[Unit]:
        """Return the tokens of a text without the special ones around it."""
        names: list[str] = self.tokenizer.convert_ids_to_tokens(input_ids)
        units = []
        for index, (id_, name, (begin, end)) in enumerate(zip(input_ids, names, offsets, strict=True)):
            unknown = id_ == self.tokenizer.unk_token_id
            continues = begin > 0 and " " not in text[begin - 1 : begin + 1] and not unknown
            word = text[begin:end] if unknown else name
            units.append(Unit(index=index, word=word, begin=begin, end=end, continues=continues, tokens=[id_]))
        return units[1:-1]

    def work(self, item: Input, content: Any, encoded: list[Unit], options: Options) -> Work:
        """Lay the units into one sequence, or into several where they are too long for one."""
        room = self.limit(options) - 2
        starts = [index for index, unit in enumerate(encoded) if index == 0 or not unit.continues]
        words = [encoded[start:end] for start, end in zip(starts, [*starts[1:], len(encoded)], strict=True)]
        if any(sum(len(unit.tokens) for unit in word) > room for word in words):
            words = [[unit] for unit in encoded]  # one endless word, as scripts without blanks have: cut anywhere
        if options.truncation:
            words = words[: split([len(_ids(word)) for word in words], room)[0][1]] if words else []
        bos, eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        tagged = Tagged(units=[unit for word in words for unit in word], sequences=[], places=[])
        before = 0
        for begin, end in split([len(_ids(word)) for word in words], room):
            sequence = [bos]
            for unit in (unit for word in words[begin:end] for unit in word):
                tagged.places.append(before + len(sequence))
                sequence += unit.tokens
            tagged.sequences.append([*sequence, eos])
            before += len(sequence) + 1
        return Work(size=sum(map(len, tagged.sequences)), content=tagged)

    def compute(self, works: Sequence[Work], options: TokenClassificationOptions) -> Sequence[Any]:
        """Run the model and read tags off."""
        contents: list[Tagged] = [work.content for work in works]
        logits = self.run([sequence for content in contents for sequence in content.sequences]).logits
        assert logits is not None
        scores_TC = self.finite(logits).float().softmax(-1).cpu().numpy()
        results, before = [], 0
        for content in contents:
            places = np.array(content.places, dtype=np.int64) + before
            results.append(self._entities(content.units, scores_TC[places], options))
            before += sum(map(len, content.sequences))
        return results

    def _entities(
        self, units: list[Unit], scores_UC: NDArray[np.float32], options: TokenClassificationOptions
    ) -> list[Entity]:
        strategy, names = options.aggregation_strategy, self.model.config.id2label or {}
        if strategy in ("none", "simple") or options.is_split_into_words:
            pairs = zip(units, scores_UC, strict=True)
            entities = [_entity(names, scores_C, [unit], unit.word) for unit, scores_C in pairs]
            if strategy == "none":
                for entity, unit in zip(entities, units, strict=True):
                    entity["index"] = unit.index
        else:
            entities = self._words(units, scores_UC, strategy)
        if strategy != "none":
            whole = strategy != "simple" or options.is_split_into_words
            entities = [self._group(group, whole_words=whole) for group in _neighbours(entities)]
        kept = [entity for entity in entities if entity.get("entity") not in options.ignore_labels]
        return [entity for entity in kept if entity.get("entity_group") not in options.ignore_labels]

    def _words(self, units: list[Unit], scores_UC: NDArray[np.float32], strategy: str) -> list[Entity]:
        """Give every word one tag."""
        starts = [index for index, unit in enumerate(units) if index == 0 or not unit.continues]
        words = []
        for start, end in zip(starts, [*starts[1:], len(units)], strict=True):
            rows = scores_UC[start:end]
            row = rows[0]
            if strategy == "average":
                row = rows.mean(0)
            elif strategy == "max":
                row = rows[rows.max(1).argmax()]
            text = self.tokenizer.convert_tokens_to_string([unit.word for unit in units[start:end]])
            words.append(_entity(self.model.config.id2label or {}, row, units[start:end], text))
        return words

    def _group(self, entities: list[Entity], *, whole_words: bool) -> Entity:
        words = [entity["word"] for entity in entities]
        return {
            "entity_group": entities[0]["entity"].split("-", 1)[-1],
            "score": float(np.mean([entity["score"] for entity in entities])),
            "word": " ".join(words) if whole_words else self.tokenizer.convert_tokens_to_string(words),
            "start": entities[0]["start"],
            "end": entities[-1]["end"],
        }


def _ids(word: Sequence[Unit]) -> list[int]:
    return [id_ for unit in word for id_ in unit.tokens]


def _units_of_words(words: Sequence[str], tokens_of: dict[str, list[int]]) -> list[Unit]:
    """Return the words of a list; their characters are counted as if a blank were between them."""
    units, begin = [], 0
    for index, word in enumerate(words):
        end = begin + len(word)
        units.append(Unit(index=index, word=word, begin=begin, end=end, continues=False, tokens=tokens_of[word]))
        begin = end + 1
    return units


def _entity(names: dict[int, str], scores_C: NDArray[np.float32], units: Sequence[Unit], word: str) -> Entity:
    best = int(scores_C.argmax())
    return {
        "entity": names[best],
        "score": float(scores_C[best]),
        "word": word,
        "start": units[0].begin,
        "end": units[-1].end,
    }


def _neighbours(entities: list[Entity]) -> list[list[Entity]]:
    """Put neighbours of one kind together; B- begins a new group."""
    groups: list[list[Entity]] = []
    for entity in entities:
        begins, kind = _kind(entity["entity"])
        if groups and not begins and kind == _kind(groups[-1][-1]["entity"])[1]:
            groups[-1].append(entity)
        else:
            groups.append([entity])
    return groups


def _kind(tag: str) -> tuple[bool, str]:
    """Return whether a tag begins an entity, and its kind; a tag without B- or I- goes on with its own."""
    return tag.startswith("B-"), tag[2:] if tag.startswith(("B-", "I-")) else tag
