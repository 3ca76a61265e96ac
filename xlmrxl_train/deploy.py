"""What is done with the models of finished runs: averaged, quantized, and scored beside what they were made of."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml

from xlmrxl_train.config import Config
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.evaluation.comparison.layout import Page
from xlmrxl_train.evaluation.comparison.reading import read_run
from xlmrxl_train.evaluation.report import Report
from xlmrxl_train.inference.averaging import average, check_alike, find_models
from xlmrxl_train.inference.model_folder import ModelFolder, new_folder
from xlmrxl_train.inference.soup import merged, soup_page
from xlmrxl_train.lineage import protocol_of
from xlmrxl_train.run import score
from xlmrxl_train.training.folder import RunFolder, writing


def average_models(
    words: Sequence[str], output: str | Path, *, evaluate: bool = False
) -> tuple[list[str], Page | None]:
    """Average models tensor by tensor into the layout of a run, so that every command takes it as one.

    Args:
        words: Model folders, run folders and globs.
        output: A new folder; weights and tokenizer lie in its `model/`.
        evaluate: Whether to score the average on the test set of the runs that its parts came from.

    Returns:
        What was written, one line each; and with `evaluate` the table of scores.

    Raises:
        ConfigError: The models cannot be averaged, or the output is there already.
        CheckpointError: Weights cannot be read or written.
        RunError: A run has no readable report.
    """
    target = new_folder(str(output))
    parts = find_models(words)
    check_alike(parts)
    runs = [part.run for part in parts if part.run is not None]
    if evaluate:
        _check_one_test_set(parts)
    average(parts, target / "model")
    lines = [f"written: {target / 'model'}, the mean of {len(parts)} models"]
    if len(runs) < len(parts):
        without = next(part.path for part in parts if part.run is None)
        return [
            *lines,
            f"no report: {without} belongs to no finished run, so what it was trained on is not known",
        ], None
    protocol = merged([protocol_of(run) for run in runs])
    notes = [f"The mean of the weights of {', '.join(run.name for run in runs)}."]
    with writing(target):
        _write_config(runs[0], target)
        shutil.copyfile(runs[0] / "environment.json", target / "environment.json")
        if not evaluate:
            Report(protocol=protocol, languages={}, metrics=read_run(runs[0]).metrics, notes=notes).write(target)
    if not evaluate:
        return [*lines, f"written: {target / 'report.json'}, without scores; --evaluate adds them"], None
    score(_config(target), protocol, target / "model", target, notes)
    return lines, soup_page(read_run(target), [read_run(run) for run in runs])


def _check_one_test_set(parts: Sequence[ModelFolder]) -> None:
    for part in parts:
        if part.run is None:
            raise ConfigError(
                f"--evaluate needs models of finished runs, whose test set it scores, got {part.path}. "
                "Leave --evaluate out, or name run folders."
            )
    sets = {(run.dataset, run.split) for part in parts if part.run for run in [read_run(part.run)]}
    if len(sets) > 1:
        named = ", ".join(f"{dataset} {split}" for dataset, split in sorted(sets))
        raise ConfigError(f"--evaluate needs runs of one test set, got {named}. Leave --evaluate out.")


def _write_config(run: Path, target: Path) -> None:
    """Write the configuration of a run as that of its average: what to evaluate on, and how."""
    values = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    values["run"] |= {"dir": str(target), "name": target.name}
    (target / "config.yaml").write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _config(run: Path) -> Config:
    return RunFolder(run).read_config()
