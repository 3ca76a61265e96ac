"""One split in several languages, tokenised: what training draws from and evaluation goes through."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from xlmrxl_train.data.cache import FeatureTable, open_or_build
from xlmrxl_train.data.examples import Example, Feature, Row
from xlmrxl_train.data.sources import Source
from xlmrxl_train.errors import DataError
from xlmrxl_train.progress import progress

CHUNK = 1000  # examples tokenised at a time


class Encoder(Protocol):
    """The part of a task that turns rows into features."""

    @property
    def encoding(self) -> dict[str, Any]: ...
    def examples(self, rows: Iterable[Row]) -> Iterator[Example]: ...
    def encode(self, examples: Sequence[Example]) -> list[list[Feature]]: ...


@dataclass(kw_only=True)
class Corpus:
    """Tables of features, one per language, with one numbering of all their examples."""

    split: str
    languages: list[str]
    tables: list[FeatureTable]

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
        """Return "language/id" of an example of the common numbering, for messages."""
        table, position = self.locate(example)
        return f"{self.languages[table]}/{self.tables[table].id_of(position)}"

    @property
    def fingerprint(self) -> str:
        """Return a hash of everything that the features depend on."""
        return hashlib.sha256("".join(table.fingerprint for table in self.tables).encode()).hexdigest()


def open_corpus(
    source: Source,
    rows: Callable[[str, str], Iterator[Row]],
    encoder: Encoder,
    tokenizer_fingerprint: str,
    *,
    split: str,
    languages: Sequence[str],
    limit: int | None,
    cache: Path,
) -> Corpus:
    """Open the tokenised examples of a split, tokenising what is not in the cache.

    Args:
        source: Says what the rows are, without reading them.
        rows: Reads them: `source.rows`, or a function around it.
        encoder: The task.
        tokenizer_fingerprint: Of the vocabulary that the task encodes with.
        split: train, validation or test.
        languages: In the order of the corpus.
        limit: Examples per language, the first ones; None: all.
        cache: Folder of tokenised data.

    Raises:
        DataError: A file, row or label is wrong, or a language of the split has no example.
    """
    tables = []
    for language in languages:
        key = json.dumps(
            [source.fingerprint(split, language), tokenizer_fingerprint, encoder.encoding, limit], sort_keys=True
        )
        fingerprint = hashlib.sha256(key.encode()).hexdigest()

        def build(language: str = language) -> Iterator[tuple[str, list[Feature]]]:
            examples = islice(encoder.examples(rows(split, language)), limit)
            while chunk := list(islice(examples, CHUNK)):
                progress.move()
                for example, features in zip(chunk, encoder.encode(chunk), strict=True):
                    yield example.id, features

        table = open_or_build(cache, fingerprint, build)
        if not table.num_examples:
            raise DataError(
                f"{split} split of {language}: expected examples, got none. "
                "Check the files, dataset.skip_labels and data.limit."
            )
        tables.append(table)
    return Corpus(split=split, languages=list(languages), tables=tables)
