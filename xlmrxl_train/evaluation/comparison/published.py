"""Published scores, and whether they may stand beside ours: same languages, split, examples and way of training.

`evaluation/published/<task>.yaml` holds what was read, each column with its source.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from typing import Any

import yaml

from xlmrxl_train.data.languages import language as describe
from xlmrxl_train.evaluation.comparison.folding import Group, Spread

ZERO_SHOT, TRANSLATE_TRAIN_ALL, NOTHING = "zero-shot", "translate-train-all", "nothing"


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedColumn:
    """What one source says of one model on a test set. Scores are shares, as ours."""

    model: str
    trained: str  # zero-shot (from English) | translate-train-all | nothing
    source: str
    mean: dict[str, float]  # metric -> mean over the set's languages
    values: dict[str, dict[str, float]] = field(default_factory=dict)  # metric -> language -> score, where known
    benchmark: str = ""  # XTREME: trained with that benchmark's settings

    @property
    def title(self) -> str:
        """Return how a table heads it: XLM-R large (XTREME)."""
        return f"{self.model} ({self.benchmark})" if self.benchmark else self.model


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedSet:
    """A test set, and the published scores on it."""

    task: str  # the file's name, also that of our recipe
    name: str
    datasets: list[str]  # names that protocols give to this data
    split: str  # as our data sets call it
    languages: list[str]
    n: dict[str, int]  # language -> examples
    score: list[str]  # the metrics whose mean is the task's score
    columns: list[PublishedColumn]

    def own_codes(self, group: Group) -> dict[str, str]:
        """Return the languages that the group scored of these, as its data set writes them: zh -> zho_Hans."""
        written: dict[str, str] = {}
        for code in group.n:
            written.setdefault(describe(code).base, code)
        return {code: written[code] for code in self.languages if code in written}

    def own_mean(self, group: Group, metric: str) -> Spread | None:
        """Return the group's mean over these languages, as far as it scored them; None where it lacks the metric."""
        codes = self.own_codes(group).values()
        if not codes or metric not in group.first.metrics:
            return None
        per_language = [group.languages[code][metric].values for code in codes]
        return Spread(values=[sum(values) / len(values) for values in zip(*per_language, strict=True)])

    def caveat(self, group: Group) -> str | None:
        """Return why the group's scores are not of the official data, in a few words; None where they are."""
        codes = self.own_codes(group)
        if general := self._general_caveat(group):
            return general
        if len(codes) < len(self.languages):
            return f"{len(codes)} of {len(self.languages)} languages"
        return next((text for text in (self._other_n(group, code) for code in codes) if text), None)

    def caveat_of(self, group: Group, language: str) -> str | None:
        """Return why the group's score in one of these languages is not of the official data."""
        if general := self._general_caveat(group):
            return general
        return self._other_n(group, language) if language in self.own_codes(group) else "not scored"

    def _general_caveat(self, group: Group) -> str | None:
        if group.stand_ins:
            return "stand-in data"
        if group.limits:
            return f"data.limit={group.limits[0]}"
        return f"{group.first.split} split" if group.first.split != self.split else None

    def _other_n(self, group: Group, language: str) -> str | None:
        official, own = self.n.get(language), group.n[self.own_codes(group)[language]]
        if official is None:
            return "n not known"
        return None if own == official else f"n differs: {language} {own:,}, official {official:,}"

    def trained_otherwise(self, group: Group, column: PublishedColumn) -> str | None:
        """Return what differs in training, in a few words; None where both were trained alike."""
        trained = {describe(code).base for code in group.first.train_languages}
        if column.trained == NOTHING:
            return "trained here" if trained or group.first.protocol.get("steps") else None
        if len(group.first.training) > 1:
            return f"trained on {', '.join(group.first.training)}"
        if column.trained == ZERO_SHOT:
            alike = trained == {"en"} and group.setting.startswith("zero-shot from")
        else:
            alike = trained >= set(self.languages) and group.setting.startswith("supervised")
        return None if alike else f"published: {column.trained}"


@lru_cache(maxsize=1)
def published_sets() -> dict[str, PublishedSet]:
    """Return every test set with published scores: xnli, paws_x, ..."""
    folder = resources.files("xlmrxl_train.evaluation").joinpath("published")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    found = {}
    for file in files:
        task = file.name.removesuffix(".yaml")
        found[task] = _published_set(task, yaml.safe_load(file.read_text(encoding="utf-8")))
    return found


def set_of(dataset: str) -> PublishedSet | None:
    """Return the test set that a protocol's data set is, if published scores are known for it."""
    wanted = _plain(dataset)
    return next((item for item in published_sets().values() if wanted in map(_plain, item.datasets)), None)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _published_set(task: str, values: Mapping[str, Any]) -> PublishedSet:
    languages: list[str] = values["languages"]
    n = values.get("n", {})
    return PublishedSet(
        task=task,
        name=values["name"],
        datasets=values["datasets"],
        split=values["split"],
        languages=languages,
        n=n if isinstance(n, dict) else dict.fromkeys(languages, n),
        score=values["score"],
        columns=[_column(languages, column) for column in values.get("columns", [])],
    )


def _column(languages: Sequence[str], values: Mapping[str, Any]) -> PublishedColumn:
    by_language = {
        metric: {code: score / 100 for code, score in zip(languages, scores, strict=True)}
        for metric, scores in values.get("values", {}).items()
    }
    return PublishedColumn(
        model=values["model"],
        trained=values["trained"],
        source=values["source"],
        mean={metric: score / 100 for metric, score in values["mean"].items()},
        values=by_language,
        benchmark=values.get("benchmark", ""),
    )
