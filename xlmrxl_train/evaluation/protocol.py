"""How scores came about: what must be the same for two of them to be comparable, and what a run may be called."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from xlmrxl_train.data.languages import language


@dataclass(kw_only=True, slots=True)
class Protocol:
    """What must be the same for two scores to be comparable."""

    recipe: str
    model: str
    kind: str = ""  # of task
    labelled: bool = True  # whether the task learns from labels; False: from text alone
    dataset: str  # that is evaluated
    split: str
    source: str  # hub, files or sample
    train_languages: list[str]  # trained on in whole, in any of the training sets
    training: dict[str, list[str]] = field(default_factory=dict)  # training set -> its languages
    translated: list[str] = field(default_factory=list)  # of train_languages, those whose texts a machine translated
    sampling_temperature: float = 1.0
    shots: dict[str, dict[str, Any]] = field(default_factory=dict)  # language -> {"split": ..., "ids": [...]}
    select_split: str | None  # which split chose the checkpoint; null: the last one was taken
    select_languages: list[str]
    select_metric: str
    stand_ins: list[str]  # what was used in place of official splits
    limit: int | None
    seed: int
    tuning: str = ""  # what learned, where that was not the whole model
    steps: int
    tokens: int
    selected_step: int
    # Protocols of the runs whose weights this one began from, the earliest first, each with "run": its folder.
    parents: list[dict[str, Any]] = field(default_factory=list)

    @property
    def seen_languages(self) -> set[str]:
        """Return the languages whose labels were used: to train, to select, or in a run that came before."""
        return {*self.train_languages, *self.shots, *self._selected_by(), *self._seen_before()}

    def is_trained_on(self, code: str) -> bool:
        """Return whether a language was trained on in whole, whatever code its training set writes for it."""
        return same_language(code) in set(map(same_language, self.train_languages))

    def setting(self, languages: Sequence[str]) -> str:
        """Return what a report calls the run: zero-shot only where no target language's labels were used.

        Args:
            languages: Those that are evaluated.
        """
        parts = [self._setting(languages)]
        if self.sampling_temperature != 1 and len(self.train_languages) + len(self.shots) > 1:
            parts.append(f"sampling temperature {self.sampling_temperature:g}")
        if len(self.training) > 1:
            parts.append(f"joint training on {', '.join(self.training)}")
        elif not set(self.training) <= {self.dataset}:
            parts.append(f"trained on {', '.join(self.training)}")
        if self.tuning:
            parts.append(self.tuning)
        if self.parents:
            parts.append(f"sequential: from {', then '.join(map(_named, self.parents))}")
        return "; ".join(parts)

    def _setting(self, languages: Sequence[str]) -> str:
        targets = [code for code in languages if not self.is_trained_on(code)]
        source = ", ".join(self.train_languages)
        used = self._used(targets)
        if self.shots:
            counts = sorted({len(shots["ids"]) for shots in self.shots.values()})
            beside = f"beside all of {source}" if source else "alone"
            head = f"few-shot (k={', '.join(map(str, counts))}) in {', '.join(self.shots)}, {beside}"
        elif not source:
            head = "no training here: the model as it came"
        elif not self.labelled:
            head = f"trained on text of {source}"
        elif not targets:
            translated = _among(languages, self.translated)
            way = "translate-train-all" if len(self.train_languages) > 1 else "translate-train"
            head = (
                f"{way}: of the evaluated languages {', '.join(translated)} trained on machine translations"
                if translated
                else "supervised: every evaluated language was trained on"
            )
        else:
            head = "cross-lingual" if used else f"zero-shot from {source}"
        return ", ".join([head, *used])

    def _used(self, targets: Sequence[str]) -> list[str]:
        """Return how labels of languages that were not trained on in whole were used, beside shots."""
        ways = {
            "selected with labels of": _among(targets, self._selected_by()),
            "begun from a run with labels of": _among(targets, self._seen_before()),
        }
        return [f"{way} {', '.join(codes)}" for way, codes in ways.items() if codes]

    def _selected_by(self) -> list[str]:
        return self.select_languages if self.select_split and self.labelled else []

    def _seen_before(self) -> list[str]:
        return [code for parent in map(of_parent, self.parents) if parent.labelled for code in parent.seen_languages]

    def trained_on(self) -> str:
        """Return the training languages, with their data sets where these are not the one that is evaluated."""
        if set(self.training) <= {self.dataset}:
            return ", ".join(self.train_languages) or "shots alone"
        return "; ".join(f"{name} in {', '.join(codes)}" for name, codes in self.training.items())

    def notes(self) -> list[str]:
        """Return what a page says of shots and of the runs that came before, one line each."""
        lines = []
        if self.shots:
            drawn = ", ".join(f"{len(shots['ids'])} of {code} ({shots['split']})" for code, shots in self.shots.items())
            lines.append(f"Shots: {drawn}; their ids are in report.json, and validation was scored without them.")
        for parent in self.parents:
            before = of_parent(parent)
            selected = f", selected on {before.select_split} of {', '.join(before.select_languages)}"
            lines.append(
                f"Began from {parent['run']}: {before.recipe}, {before.kind or 'task unknown'} on "
                f"{', '.join(before.training) or before.dataset} in "
                f"{', '.join([*before.train_languages, *before.shots])}{selected if before.select_split else ''}."
            )
        return lines


def of_parent(values: dict[str, Any]) -> Protocol:
    """Return an entry of `Protocol.parents` as a protocol.

    Raises:
        TypeError: It is not one of this version.
    """
    return Protocol(**{name: value for name, value in values.items() if name != "run"})


def same_language(code: str) -> tuple[str, str]:
    """Return what en, eng and eng_Latn have in common: the language in its script."""
    known = language(code)
    return known.base, known.script


def _among(codes: Iterable[str], others: Iterable[str]) -> list[str]:
    known = set(map(same_language, others))
    return [code for code in codes if same_language(code) in known]


def _named(parent: dict[str, Any]) -> str:
    before = of_parent(parent)
    return f"{before.recipe} ({', '.join(before.training) or before.dataset})"
