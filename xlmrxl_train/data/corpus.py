"""One split in several languages, tokenised: what training draws from and evaluation goes through."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from xlmrxl_train.data.cache import FeatureTable, open_or_build
from xlmrxl_train.data.examples import Example, Feature, Row
from xlmrxl_train.data.shots import Draw
from xlmrxl_train.data.sources import Source
from xlmrxl_train.errors import ConfigError, DataError
from xlmrxl_train.progress import progress

CHUNK = 1000  # examples tokenised at a time


class Encoder(Protocol):
    """The part of a task that turns rows into features."""

    @property
    def encoding(self) -> dict[str, Any]: ...
    def examples(self, rows: Iterable[Row]) -> Iterator[Example]: ...
    def encode(self, examples: Sequence[Example]) -> list[list[Feature]]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What one table of a corpus is made of: a split of a data set in one language."""

    split: str
    language: str
    source: Source
    encoder: Encoder  # of this data set: its columns, its way of writing labels
    dataset: str = ""  # its name in Config.mixture; "": Config.dataset
    draw: Draw | None = None  # take some of the examples only
    without: tuple[str, ...] = ()  # ids that are left out

    @property
    def name(self) -> str:
        """Return "en", or "squad/en" for a data set of a mixture: what the names of its examples begin with."""
        return f"{self.dataset}/{self.language}" if self.dataset else self.language

    def rows(self) -> Iterator[Row]:
        """Yield the rows of the data set."""
        return self.source.rows(self.split, self.language)

    def choose(self, examples: Iterable[Example]) -> Iterator[Example]:
        """Yield those that belong to the table."""
        left_out = set(self.without)
        kept = (example for example in examples if example.id not in left_out)
        return iter(self.draw.of(kept)) if self.draw else kept

    @property
    def choice(self) -> list[Any]:
        """Return what `choose` depends on, for fingerprints; nothing where it takes all."""
        drawn = [["draw", self.draw.count, self.draw.seed]] if self.draw else []
        return drawn + ([["without", *sorted(self.without)]] if self.without else [])

    @contextmanager
    def faults_named(self) -> Iterator[None]:
        """Let faults in a data set of a mixture begin with its key, since they speak of "dataset"."""
        try:
            yield
        except ConfigError as error:
            if not self.dataset:
                raise
            raise ConfigError(*(f"mixture.{self.dataset}: {fault}" for fault in error.faults)) from error
        except DataError as error:
            if not self.dataset:
                raise
            raise DataError(f"mixture.{self.dataset}: {error}") from error


@dataclass(kw_only=True)
class Corpus:
    """Tables of features, one per data set and language, with one numbering of all their examples."""

    split: str
    languages: list[str]  # of each table
    tables: list[FeatureTable]
    datasets: list[str] = field(default_factory=list)  # of each table, names in a mixture; empty: there is none

    def __post_init__(self) -> None:
        self.starts = np.cumsum([0, *(table.num_examples for table in self.tables)])
        sizes = []
        for table in self.tables:
            tokens = np.zeros(table.num_examples, dtype=np.int64)
            np.add.at(tokens, table.example_of, table.lengths)
            sizes.append(tokens)
        self.sizes: np.ndarray = np.concatenate(sizes) if sizes else np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        """Return the number of examples over all languages."""
        return int(self.starts[-1])

    def locate(self, example: int) -> tuple[int, int]:
        """Return table and position in it of an example of the common numbering."""
        table = int(np.searchsorted(self.starts, example, side="right")) - 1
        return table, int(example - self.starts[table])

    def features(self, examples: Sequence[int]) -> tuple[list[Feature], list[tuple[int, int]]]:
        """Return all features of some examples, longest first, and the (table, example) of each feature.

        The sort is stable, so that the windows of one example keep their order among those of a length.
        """
        rows = [
            (feature, (table, position))
            for table, position in map(self.locate, examples)
            for feature in self.tables[table].features_of(position)
        ]
        rows.sort(key=lambda row: -len(row[0].input_ids))
        return [feature for feature, _ in rows], [place for _, place in rows]

    def name(self, example: int) -> str:
        """Return "language/id" or "data set/language/id" of an example of the common numbering, for messages."""
        table, position = self.locate(example)
        place = [self.datasets[table]] if self.datasets and self.datasets[table] else []
        return "/".join([*place, self.languages[table], self.tables[table].id_of(position)])

    @property
    def fingerprint(self) -> str:
        """Return a hash of everything that the features depend on."""
        return hashlib.sha256("".join(table.fingerprint for table in self.tables).encode()).hexdigest()


def open_corpus(
    split: str,
    parts: Sequence[Part],
    tokenizer_fingerprint: str,
    *,
    rows: Callable[[Part], Iterator[Row]],
    limit: int | None,
    cache: Path,
) -> Corpus:
    """Open the tokenised examples of a split, tokenising what is not in the cache.

    Args:
        split: What it is: train, validation or test.
        parts: In the order of the corpus.
        tokenizer_fingerprint: Of the vocabulary that the task encodes with.
        rows: Reads a part: `Part.rows`, or a function around it.
        limit: Examples per part, the first ones; None: all.
        cache: Folder of tokenised data.

    Raises:
        DataError: A file, row or label is wrong, or a language of the split has no example.
    """
    tables = []
    for part in parts:
        with part.faults_named():
            tables.append(_open_table(part, tokenizer_fingerprint, rows=rows, limit=limit, cache=cache))
    languages, datasets = [part.language for part in parts], [part.dataset for part in parts]
    return Corpus(split=split, languages=languages, tables=tables, datasets=datasets if any(datasets) else [])


def _open_table(
    part: Part, tokenizer_fingerprint: str, *, rows: Callable[[Part], Iterator[Row]], limit: int | None, cache: Path
) -> FeatureTable:
    encoder = part.encoder
    key = [part.source.fingerprint(part.split, part.language), tokenizer_fingerprint, encoder.encoding, limit]
    key += part.choice
    fingerprint = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()

    def build() -> Iterator[tuple[str, list[Feature]]]:
        examples = part.choose(islice(encoder.examples(rows(part)), limit))
        while chunk := list(islice(examples, CHUNK)):
            progress.move()
            for example, features in zip(chunk, encoder.encode(chunk), strict=True):
                yield example.id, features

    table = open_or_build(cache, fingerprint, build)
    if part.draw and table.num_examples < part.draw.count:
        raise DataError(
            f"train.shots={part.draw.count} asks for more examples than the {part.split} split of {part.language} "
            f"has, {table.num_examples}. Set fewer, or another train.shot_split."
        )
    if part.without and not table.num_examples:
        raise DataError(
            f"{part.split} split of {part.language}: expected examples beside the {len(part.without)} that "
            "train.shots takes, got none. Set fewer, or train.shot_split=train."
        )
    if not table.num_examples:
        raise DataError(
            f"{part.split} split of {part.language}: expected examples, got none. "
            "Check the files, dataset.skip_labels and data.limit."
        )
    return table
