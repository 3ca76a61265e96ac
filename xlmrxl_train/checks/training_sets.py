"""What the data sets of a mixture must be, beside the one that is evaluated."""

import re

from xlmrxl_train.checks.tasks import faults_of_data_set
from xlmrxl_train.config import Config, DatasetConfig


def faults_of_training_sets(config: Config) -> list[str]:
    """Return what is wrong with the data sets of a mixture, and with the languages to train on."""
    wanted, sets = config.train.languages, config.mixture or {"": config.dataset}
    known = list(dict.fromkeys(code for dataset in sets.values() for code in dataset.languages))
    faults = []
    if unknown := [code for code in wanted if code not in known and wanted != ["all"]]:
        whose = "the mixture" if config.mixture else config.dataset.name
        faults.append(
            f"train.languages must be languages of {whose}, got {', '.join(unknown)}. It has {', '.join(known)}."
        )
    for name, dataset in config.mixture.items():
        faults += _faults_of_one(config, f"mixture.{name}", dataset)
    return faults


def _faults_of_one(config: Config, key: str, dataset: DatasetConfig) -> list[str]:
    faults, evaluated = [], config.dataset
    if not re.fullmatch(r"[A-Za-z0-9_-]+", key.removeprefix("mixture.")):
        faults.append(f"{key} must have a name of letters, digits, - and _. Choose another.")
    if dataset.kind != evaluated.kind:
        faults.append(
            f"{key} must be of the kind that is evaluated, {evaluated.kind}, got {dataset.kind!r}. "
            "Train on it in a run of its own, and begin this one from it with model.path=<run folder>."
        )
    elif dataset.kind != "multiple_choice" and dataset.labels != evaluated.labels:  # its head scores any number
        faults.append(
            f"{key} must have the labels of {evaluated.name} ({', '.join(evaluated.labels) or 'none'}), in their "
            f"order, got {', '.join(dataset.labels) or 'none'}. Map what its files write with {key}.label_values."
        )
    else:
        of_evaluated = faults_of_data_set(config, evaluated)
        own = [text for text in faults_of_data_set(config, dataset) if text not in of_evaluated]
        faults += [text.replace("dataset.", f"{key}.") for text in own]
    if not dataset.languages:
        faults.append(f"{key}.languages must name at least one language, got none.")
    source = config.data.source
    if source in ("hub", "files", "sample") and getattr(dataset, source) is None:
        faults.append(f"data.source={source} needs {key}.{source}, which {dataset.name or 'the data set'} lacks.")
    return faults
