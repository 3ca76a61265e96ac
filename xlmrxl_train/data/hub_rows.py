"""Rows of a data set on the Hugging Face Hub, in parquet, through the `datasets` library. No code of the Hub is run."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import datasets

from xlmrxl_train.config import DatasetConfig, HubConfig
from xlmrxl_train.data.examples import Row
from xlmrxl_train.data.files import missing_column
from xlmrxl_train.data.languages import language as describe
from xlmrxl_train.data.sources import RowIds, column_of_role
from xlmrxl_train.errors import ConfigError, DataError
from xlmrxl_train.hub import hub_fault
from xlmrxl_train.progress import progress

_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubSource:
    """Rows from a repository of data sets."""

    kind = "hub"

    def __init__(self, dataset: DatasetConfig, hub: HubConfig) -> None:
        """Remember which repository; nothing is fetched yet."""
        self._dataset = dataset
        self._hub = hub
        self._opened: dict[tuple[str, str], datasets.Dataset] = {}

    def has(self, split: str, language: str) -> bool:
        """Return whether the configuration names this split on the Hub."""
        known = language in self._dataset.languages and language not in self._hub.missing.get(split, ())
        return known and self._split(split) is not None

    def check(self, split: str, languages: Iterable[str]) -> None:
        """Fetch the split in each of the languages, unless it was fetched before."""
        for language in languages:
            self._open(split, language)

    def stand_ins(self, split: str, language: str) -> list[str]:
        """Return nothing: what the Hub has is the official split."""
        return []

    def translated(self, language: str) -> bool:
        """Return whether the configuration says so."""
        return language in self._hub.translated

    def fingerprint(self, split: str, language: str) -> str:
        """Return a hash of the commit, configuration, split and columns.

        A branch moves, so where the revision is not a commit, the data is opened to see which one it came from.
        """
        dataset, hub = self._dataset, self._hub
        commit = hub.revision
        if not _COMMIT.fullmatch(commit):
            commit = _commit_of(self._open(split, language))
        whose = [dataset.language_column, language] if dataset.language_column else self._prefix(language) or None
        roles = column_of_role(dataset.columns, hub.columns, language)
        configuration = self._configuration(language)
        content = [hub.repository, commit, configuration, self._split(split), roles, dataset.id_column, whose]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def rows(self, split: str, language: str) -> Iterator[Row]:
        """Yield the rows; `where` counts from 0, as the Hub's viewer does."""
        rows = self._open(split, language)
        configuration = self._configuration(language)
        place = "/".join(filter(None, (self._hub.repository, configuration, self._split(split))))
        roles = column_of_role(self._dataset.columns, self._hub.columns, language)
        column, id_column = self._dataset.language_column, self._dataset.id_column
        needed = dict.fromkeys([*roles.values(), *filter(None, (column, id_column))])
        for name in needed:
            if name not in rows.column_names:
                raise missing_column(place, name, rows.column_names)
        ids, prefix = RowIds(id_column), self._prefix(language)
        number = 0
        for index, item in enumerate(rows.select_columns(list(needed)) if roles else rows):
            record = cast("dict[str, Any]", item)
            if column is not None and _name_of(rows, column, record[column]) != language:
                continue
            if prefix and not str(record[str(id_column)]).startswith(prefix):
                continue
            where = f"{place} row {index}"
            values = {role: record[name] for role, name in roles.items()} if roles else record
            yield Row(id=ids.id_of(where, record, number), values=values, where=where, language=language)
            number += 1
        if not number:
            what = f"rows of {language} in column {column!r}" if column else "rows"
            what += f" whose id begins with {prefix!r}" if prefix else ""
            raise DataError(f"{place}: expected {what}, found none. Check dataset.hub and dataset.languages.")

    def _prefix(self, language: str) -> str:
        """Return how the ids of a language's rows begin; "" where its rows are known otherwise."""
        return self._hub.id_prefixes.get(language, "")

    def _configuration(self, language: str) -> str:
        configuration = self._hub.configuration.replace("{language}", language)
        if "{language_name}" not in configuration:
            return configuration
        name = self._hub.language_names.get(language) or describe(language).name
        return configuration.replace("{language_name}", name)

    def _split(self, split: str) -> str | None:
        return cast("str | None", getattr(self._hub, split))

    def _open(self, split: str, language: str) -> datasets.Dataset:
        hub = self._hub
        configuration = self._configuration(language)
        name = self._split(split)
        if name is None:
            raise DataError(
                f"{hub.repository}: expected a {split} split, found none in dataset.hub.{split}. "
                "Name the Hub's split there, or choose another source."
            )
        if (split, language) not in self._opened:
            try:
                with progress.trusting(f"fetching {hub.repository}"):
                    opened = datasets.load_dataset(
                        hub.repository, configuration or None, split=name, revision=hub.revision
                    )
            except Exception as error:  # the HTTP libraries below it, which change with its version, share no base
                raise _fault(hub, configuration, name, error) from error
            if _COMMIT.fullmatch(hub.revision) and (commit := _commit_of(opened)) != hub.revision:
                # Without a network `datasets` takes the newest commit that it has, whatever was asked for.
                raise ConfigError(
                    f"dataset.hub.revision: {hub.repository} at revision {hub.revision} was asked for and is not on "
                    f"this machine, which has {commit}. Fetch it on a machine with a network."
                )
            self._opened[split, language] = opened
        return self._opened[split, language]


def _commit_of(rows: datasets.Dataset) -> str:
    """Return the commit that rows came from: `datasets` names the folder of its cache after it."""
    return Path(rows.cache_files[0]["filename"]).parent.name


def _name_of(rows: datasets.Dataset, column: str, value: Any) -> str:
    feature = rows.features[column]
    return str(feature.int2str(value) if isinstance(feature, datasets.ClassLabel) else value)


def _fault(hub: HubConfig, configuration: str, split: str, error: Exception) -> ConfigError:
    text = str(error).strip()
    if isinstance(error, ValueError) and "BuilderConfig" in text:
        key, what = "configuration", configuration
    elif isinstance(error, ValueError) and "nknown split" in text:
        key, what = "the split", split
    else:
        place = "/".join(filter(None, (hub.repository, configuration, split)))
        return hub_fault("dataset.hub", f"{place} at revision {hub.revision}", error)
    offered = ", ".join(re.findall(r"'([^']+)'", text.partition("[")[2])[:20])
    return ConfigError(
        f"dataset.hub: {hub.repository} at revision {hub.revision} has no {key.removeprefix('the ')} {what!r}; "
        f"it has {offered or 'none'}. Set dataset.hub, or choose other languages."
    )
