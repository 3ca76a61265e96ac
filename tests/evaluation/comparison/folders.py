"""Run folders as real runs leave them, made by the real Report and metrics, without a model."""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from xlmrxl_train import metrics
from xlmrxl_train.cli import load_config
from xlmrxl_train.config import Config, to_dict
from xlmrxl_train.evaluation.bootstrap import interval
from xlmrxl_train.evaluation.report import Protocol, Report
from xlmrxl_train.evaluation.scores import LanguageScore

Guesses = Mapping[str, tuple[Sequence[Any], Sequence[Any]]]  # language -> predictions, references


@lru_cache
def _composed(overrides: tuple[str, ...]) -> Config:
    return load_config(overrides)


def write_run(
    folder: Path,
    guesses: Guesses,
    *,
    names: Sequence[str] = ("accuracy",),
    seed: int = 1,
    overrides: Sequence[str] = ("recipe=demo",),
    ids: Mapping[str, Sequence[str]] | None = None,
    predictions: bool = True,
    **protocol: Any,
) -> Path:
    """Write config.yaml, predictions/ and report.json of a run that guessed so."""
    config = deepcopy(_composed(tuple(overrides)))
    config.seed, config.run.dir, config.run.name = seed, str(folder), f"seed-{seed}"
    values = {
        "recipe": config.run.recipe,
        "model": config.model.path or config.model.name,
        "dataset": config.dataset.name,
        "split": "test",
        "source": "files",
        "train_languages": ["en"],
        "training": {config.dataset.name: ["en"]},
        "select_split": None,
        "select_languages": [],
        "select_metric": names[0],
        "stand_ins": [],
        "limit": None,
        "seed": seed,
        "steps": 10,
        "tokens": 1000,
        "selected_step": 10,
    } | protocol
    scores = {}
    for language, (predicted, truth) in guesses.items():
        rows = {name: metrics.load(name).statistics(predicted, truth) for name in names}
        scores[language] = LanguageScore(
            values={name: metrics.load(name).fold(rows[name]) for name in names},
            n=len(truth),
            intervals={name: interval(rows[name], metrics.load(name).fold, 20) for name in names},
        )
        if predictions:
            (folder / "predictions").mkdir(parents=True, exist_ok=True)
            written = (ids or {}).get(language) or [str(number) for number in range(len(truth))]
            lines = [
                {"id": name, "prediction": guess, "reference": true}
                | {"statistics": {metric: rows[metric][number].tolist() for metric in names}}
                for number, (name, guess, true) in enumerate(zip(written, predicted, truth, strict=True))
            ]
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (folder / "predictions" / f"{language}.jsonl").write_text(text, encoding="utf-8")
    Report(protocol=Protocol(**values), languages=scores, metrics=list(names)).write(folder)
    (folder / "config.yaml").write_text(yaml.safe_dump(to_dict(config), sort_keys=False), encoding="utf-8")
    return folder


def right(share: float, n: int, *, start: int = 0) -> tuple[list[int], list[int]]:
    """Return guesses of which a share is right, the right ones from example `start` on, round about."""
    hits = {(start + number) % n for number in range(round(share * n))}
    return [0 if number in hits else 1 for number in range(n)], [0] * n
