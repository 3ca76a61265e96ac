"""What finished runs left in their folders: scores, how they came about, settings, predictions."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from xlmrxl_train.errors import DataError, RunError
from xlmrxl_train.evaluation.scores import LanguageScore

Averages = dict[str, dict[str, float | None]]  # metric -> name of the average -> value


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedRun:
    """A run folder, or the folder of a later evaluation, with its report."""

    folder: Path
    settings: dict[str, Any]  # every key of config.yaml: "train.batch_size" -> 32
    protocol: dict[str, Any]
    setting: str  # "zero-shot from en": what its own report calls it
    metrics: list[str]
    notes: list[str]  # what else its report says
    languages: dict[str, LanguageScore]
    averages: Averages

    @property
    def dataset(self) -> str:
        """Return the name of the data set."""
        return str(self.protocol["dataset"])

    @property
    def split(self) -> str:
        """Return which split was scored."""
        return str(self.protocol["split"])

    @property
    def seed(self) -> int:
        """Return the seed."""
        return int(self.protocol["seed"])

    @property
    def model(self) -> str:
        """Return what the run's report calls the model."""
        return str(self.protocol["model"])

    @property
    def train_languages(self) -> list[str]:
        """Return the languages that were trained on."""
        return list(self.protocol["train_languages"])

    @property
    def training(self) -> dict[str, list[str]]:
        """Return the data sets that were trained on, with their languages; empty in reports that do not say."""
        return dict(self.protocol.get("training") or {})

    def predictions(self, language: str) -> "Predictions | None":
        """Return the predictions in one language; None where the run wrote none.

        Raises:
            DataError: A line is damaged, or there are more or fewer than the report counts.
        """
        path = self.folder / "predictions" / f"{language}.jsonl"
        if not path.is_file():
            return None
        found = Predictions.read(path, self.metrics)
        if len(found.ids) != self.languages[language].n:
            raise DataError(
                f"{path} must hold the {self.languages[language].n} examples that report.json counts, got "
                f"{len(found.ids)}. Restore it, or remove it to report without paired tests."
            )
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictions:
    """What a run said of every example of one language."""

    ids: list[str]
    references: list[Any]  # the truth, as the task writes it; None where it writes none
    statistics: dict[str, np.ndarray]  # metric -> [examples, k]

    @classmethod
    def read(cls, path: Path, metrics: Sequence[str]) -> "Predictions":
        """Read a file of one JSON object per line.

        Raises:
            DataError: It names the line.
        """
        ids, references = [], []
        rows: dict[str, list[list[float]]] = {metric: [] for metric in metrics}
        number = 0
        with path.open(encoding="utf-8") as lines:
            try:
                for line in lines:
                    number += 1  # the message below names it
                    values = json.loads(line)
                    ids.append(str(values["id"]))
                    references.append(values.get("reference"))
                    for metric in metrics:
                        rows[metric].append(values["statistics"][metric])
                statistics = {metric: np.asarray(rows[metric], dtype=np.float64) for metric in metrics}
                if any(table.ndim != 2 for table in statistics.values()):
                    raise ValueError("rows of numbers of different length")
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise DataError(
                    f"{path}:{number}: a line must hold id and statistics of {', '.join(metrics)}, got "
                    f"{_brief(error)}. Restore the file, or remove it to report without paired tests."
                ) from None
        return cls(ids=ids, references=references, statistics=statistics)


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """The runs below some folders."""

    finished: list[FinishedRun]
    unfinished: list[str]  # one line each: which folder, and how far it came


def find_runs(words: Iterable[str]) -> Found:
    """Read the runs that folders and globs name; a folder that is no run stands for the runs below it.

    Raises:
        RunError: With every fault, one line each: no such folder, no run in it, a damaged file.
    """
    faults: list[str] = []
    finished, unfinished = [], []
    for folder in run_folders(words, faults):
        try:
            report = folder / "report.json"
            if report.is_file():
                finished.append(read_run(folder))
            else:
                unfinished.append(_how_far(folder))
        except RunError as error:
            faults.append(str(error))
    if faults:
        raise RunError("\n".join(faults))
    return Found(finished=finished, unfinished=unfinished)


def read_run(folder: Path, *, must_score: bool = True) -> FinishedRun:
    """Read one finished run.

    Args:
        folder: Of the run.
        must_score: Whether one that scored nothing is at fault.

    Raises:
        RunError: Its report or configuration is damaged, or it scored nothing.
    """
    path = folder / "report.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        protocol, metrics = values["protocol"], [str(name) for name in values["metrics"]]
        missing = [key for key in ("dataset", "split", "seed", "model", "train_languages") if key not in protocol]
        if missing:
            raise KeyError(f"protocol.{missing[0]}")
        languages = {code: _score(code, entry, metrics) for code, entry in values["languages"].items()}
        run = FinishedRun(
            folder=folder,
            settings=_settings(folder),
            protocol=protocol,
            setting=str(values["setting"]),
            metrics=metrics,
            notes=[str(note) for note in values.get("notes", [])],
            languages=languages,
            averages={metric: dict(values["averages"][metric]) for metric in metrics if languages},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(
            f"{path} must be the report of a run, got a damaged or different file ({_brief(error)}). "
            "Restore it; or remove it and start the run's command again, which writes it anew."
        ) from None
    if must_score and not run.languages:
        raise RunError(
            f"{folder} has scored no language (evaluate.test=false?), so there is nothing to report. Leave it out."
        )
    return run


def _score(code: str, entry: Mapping[str, Any], metrics: Sequence[str]) -> LanguageScore:
    values = {metric: entry[metric] for metric in metrics}
    if not all(isinstance(value, int | float) for value in values.values()) or not isinstance(entry["n"], int):
        raise ValueError(f"scores of {code} that are no numbers")
    intervals = {metric: (float(low), float(high)) for metric, (low, high) in entry.get("interval", {}).items()}
    return LanguageScore(
        values={name: float(value) for name, value in values.items()}, n=entry["n"], intervals=intervals
    )


def _settings(folder: Path) -> dict[str, Any]:
    """Return the keys of the run's configuration; a later evaluation has that of the run it belongs to."""
    path = folder / "config.yaml"
    if not path.is_file() and _is_evaluation(folder):
        path = folder.parents[1] / "config.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("it must hold keys and values")
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise RunError(f"{path} cannot be read: {_brief(error)}. Restore it from a copy.") from None
    return dict(_leaves(values, ""))


def _leaves(values: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def run_folders(words: Iterable[str], faults: list[str]) -> list[Path]:
    """Return every run folder once, in the order given."""
    found: dict[Path, Path] = {}
    for word in words:
        try:
            path = Path(word).expanduser()
            wild = not path.exists() and _is_pattern(word)
            matches = _matches(path) if wild else [path]
            runs = [run for match in matches if match.is_dir() for run in _runs_below(match, _DEPTH)]
            problem = "it matches nothing" if wild and not matches else _not_a_run(path)
        except (OSError, RuntimeError, ValueError) as error:  # not to be read, too long a name, no pattern
            runs, problem = [], str(error)[:160].rstrip(".")
        if not runs:
            faults.append(
                f"{word[:200]} is not a run folder: {problem}. Give folders that training runs wrote, "
                "e.g. runs/xnli/seed-1."
            )
        for run in runs:
            found.setdefault(run.resolve(), run)
    return list(found.values())


_DEPTH = 4  # runs/<group>/<recipe>/<name> is found from where runs/ lies


def _not_a_run(path: Path) -> str:
    if path.is_file():
        return "it is a file"
    return "no run is in it or below it" if path.is_dir() or _is_pattern(str(path)) else "it does not exist"


def _is_pattern(word: str) -> bool:
    return any(letter in word for letter in "*?[")


def _matches(pattern: Path) -> list[Path]:
    """Return what a pattern such as runs/*/seed-[12] names, sorted."""
    fixed = next(index for index, part in enumerate(pattern.parts) if _is_pattern(part))
    return sorted(Path(*pattern.parts[:fixed]).glob("/".join(pattern.parts[fixed:])))


def _runs_below(folder: Path, depth: int) -> list[Path]:
    """Return the folder if it is a run, else the runs below it; a run's own folders are not searched."""
    if (folder / "config.yaml").is_file() or ((folder / "report.json").is_file() and _is_evaluation(folder)):
        return [folder]
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()) if depth else []
    return [run for path in inner if not path.name.startswith(".") for run in _runs_below(path, depth - 1)]


def _is_evaluation(folder: Path) -> bool:
    """Whether a later evaluation of a run wrote here: <run>/evaluation/<data set>."""
    return folder.resolve().parent.name == "evaluation"


def _how_far(folder: Path) -> str:
    """Return one line about a run without a report."""
    steps = [path.name.removeprefix("step-") for path in folder.glob("checkpoints/step-*")]
    came = f"its last checkpoint is of step {int(max(steps)):,}" if steps and max(steps).isdigit() else "no checkpoint"
    return f"{folder} is not finished ({came}), so it is left out. Start its command again, which goes on from there."


def _brief(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    return f"no {text}" if isinstance(error, KeyError) else (text or type(error).__name__)[:160]
