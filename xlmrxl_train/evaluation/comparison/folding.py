"""Runs of one configuration that differ in their seed, folded into one: mean, deviation, range, interval."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import Any

import numpy as np

from xlmrxl_train import metrics
from xlmrxl_train.config import FREE
from xlmrxl_train.errors import RunError
from xlmrxl_train.evaluation.bootstrap import bounds, resampled_mean
from xlmrxl_train.evaluation.comparison.reading import FinishedRun, Predictions

RESAMPLES = 1000
# A run's place and name, and where its files lie: never a difference between two experiments.
_PLACES = ("run.", "data.root", "data.cache", "tracker.", "seed")


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """One score over the seeds of a group."""

    values: list[float]  # per run
    interval: tuple[float, float] | None = None  # 95 %, of the mean, over examples and seeds

    @property
    def mean(self) -> float:
        """Return the mean over runs."""
        return mean(self.values)

    @property
    def deviation(self) -> float | None:
        """Return the standard deviation over runs, with n - 1; None of a single run."""
        return stdev(self.values) if len(self.values) > 1 else None


@dataclass(kw_only=True, slots=True)
class Group:
    """Runs that differ in their seed, or a single run."""

    label: str  # A, B, ...
    runs: list[FinishedRun]  # by seed
    n: dict[str, int] = field(default_factory=dict)  # language -> examples
    languages: dict[str, dict[str, Spread]] = field(default_factory=dict)  # language -> metric -> score
    averages: dict[str, dict[str, Spread | None]] = field(default_factory=dict)  # metric -> name -> score

    @property
    def first(self) -> FinishedRun:
        """Return the run with the lowest seed."""
        return self.runs[0]

    @property
    def seeds(self) -> list[int]:
        """Return the seeds of the runs."""
        return [run.seed for run in self.runs]

    @property
    def setting(self) -> str:
        """Return what the runs' own reports call them: zero-shot only if each of them is."""
        return "; ".join(dict.fromkeys(run.setting for run in self.runs))

    @property
    def stand_ins(self) -> list[str]:
        """Return what stood in for official splits in any of the runs."""
        return list(dict.fromkeys(text for run in self.runs for text in run.protocol.get("stand_ins", [])))

    @property
    def notes(self) -> list[str]:
        """Return what else the runs' reports say."""
        return list(dict.fromkeys(note for run in self.runs for note in run.notes))

    @property
    def limits(self) -> list[int]:
        """Return data.limit of the runs that had one."""
        return list(dict.fromkeys(run.protocol["limit"] for run in self.runs if run.protocol.get("limit")))

    def predictions(self, language: str) -> list[Predictions] | None:
        """Return every run's predictions in one language; None where any of them has none."""
        found = [run.predictions(language) for run in self.runs]
        complete = [item for item in found if item is not None]
        return complete if len(complete) == len(found) else None


def fold(runs: Sequence[FinishedRun]) -> list[Group]:
    """Return the runs in groups of one configuration, in the order in which they came.

    Keys that do not change what is computed (`FREE`) may differ within a group, unless that would put one seed into
    it twice: those runs are there to be compared.

    Raises:
        RunError: The seeds of a group scored different data.
    """
    groups = [part for group in _grouped(runs, _PLACES + FREE) for part in _without_doubled_seeds(group)]
    return [_folded(_label(index), sorted(group, key=lambda run: run.seed)) for index, group in enumerate(groups)]


def _label(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else f"{_label(index // 26 - 1)}{_label(index % 26)}"


def _grouped(runs: Sequence[FinishedRun], ignored: tuple[str, ...]) -> list[list[FinishedRun]]:
    """Return the runs whose settings are the same as they stand, or but for each run's own seed in a path."""
    groups: list[list[FinishedRun]] = []
    known: list[set[str]] = []  # of each group, what the settings of its runs are
    for run in runs:
        kept = {key: value for key, value in run.settings.items() if not key.startswith(ignored)}
        seedless = {key: _without_seed(value, run) for key, value in kept.items()}
        own = {json.dumps([run.dataset, run.split, each], sort_keys=True, default=str) for each in (kept, seedless)}
        fitting = [index for index, settings in enumerate(known) if settings & own]
        merged = [run]
        for index in reversed(fitting):
            merged, own = [*groups.pop(index), *merged], own | known.pop(index)
        place = fitting[0] if fitting else len(groups)
        groups.insert(place, merged)
        known.insert(place, own)
    return groups


def _without_seed(value: object, run: FinishedRun) -> object:
    """Return a setting with the run's own seed taken out of a path: model.path=runs/first_stage/seed-1."""
    return re.sub(rf"\bseed-{run.seed}\b", "seed-*", value) if isinstance(value, str) else value


def _without_doubled_seeds(group: list[FinishedRun]) -> Iterator[list[FinishedRun]]:
    """Yield the group, or parts of it by their other settings, or one by one what has the same in every setting."""
    if not _has_doubled_seed(group):
        yield group
        return
    for part in _grouped(group, _PLACES):
        if _has_doubled_seed(part):
            yield from ([run] for run in part)
        else:
            yield part


def _has_doubled_seed(group: Sequence[FinishedRun]) -> bool:
    return len({run.seed for run in group}) < len(group)


def _folded(label: str, runs: list[FinishedRun]) -> Group:
    group = Group(label=label, runs=runs)
    first = runs[0]
    for run in runs[1:]:
        counts = [{code: score.n for code, score in item.languages.items()} for item in (first, run)]
        if counts[0] != counts[1]:
            raise RunError(
                f"{run.folder} must have scored what {first.folder} did, since only their seeds differ, got "
                f"{_shown_counts(counts[1])} and {_shown_counts(counts[0])} examples. Report them apart."
            )
    resampled: dict[str, list[np.ndarray]] = {metric: [] for metric in first.metrics}
    for code, score in first.languages.items():
        group.n[code] = score.n
        samples = _samples(group, code) if len(runs) > 1 else {}
        group.languages[code] = {
            metric: Spread(
                values=[run.languages[code].values[metric] for run in runs],
                interval=bounds(samples[metric]) if metric in samples else _stored(runs, code, metric),
            )
            for metric in first.metrics
        }
        for metric, values in samples.items():
            resampled[metric].append(values)
    for metric in first.metrics:
        complete = len(resampled[metric]) == len(group.n)
        of_mean = bounds(np.mean(resampled[metric], axis=0)) if complete and len(runs) > 1 else None
        group.averages[metric] = {name: _average(runs, metric, name, of_mean) for name in first.averages[metric]}
    return group


def _average(runs: Sequence[FinishedRun], metric: str, name: str, of_mean: tuple[float, float] | None) -> Spread | None:
    values = [run.averages[metric].get(name) for run in runs]
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(runs):
        return None
    return Spread(values=numbers, interval=of_mean if name == "mean" else None)


def _stored(runs: Sequence[FinishedRun], code: str, metric: str) -> tuple[float, float] | None:
    return runs[0].languages[code].intervals.get(metric) if len(runs) == 1 else None


def _samples(group: Group, code: str) -> dict[str, np.ndarray]:
    """Return the resampled mean over seeds, per metric; empty where predictions are missing."""
    predictions = group.predictions(code)
    if predictions is None:
        return {}
    return {
        metric: resampled_mean([item.statistics[metric] for item in predictions], metrics.load(metric).fold, RESAMPLES)
        for metric in group.first.metrics
    }


def _shown_counts(counts: dict[str, int]) -> str:
    shown = ", ".join(f"{code} {n}" for code, n in list(counts.items())[:4])
    return shown + (f" and {len(counts) - 4} more" if len(counts) > 4 else "")


def differences(groups: Sequence[Group]) -> dict[str, list[Any]]:
    """Return the settings in which groups differ: key -> the value of each group, None where it has no such key.

    Settings that change nothing that is computed are left out, unless no other differs.
    """
    for ignored in (_PLACES + FREE, _PLACES):
        as_written = [group.first.settings for group in groups]
        seedless = [
            {key: _without_seed(value, group.first) for key, value in group.first.settings.items()} for group in groups
        ]
        keys = dict.fromkeys(key for each in as_written for key in each if not key.startswith(ignored))
        if varying := [key for key in keys if _vary(as_written, key) and _vary(seedless, key)]:
            return {key: [each.get(key) for each in seedless] for key in varying}
    return {}


def _vary(settings: Sequence[dict[str, Any]], key: str) -> bool:
    return any(each.get(key) != settings[0].get(key) for each in settings)
