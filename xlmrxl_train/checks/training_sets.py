"""What a run trains on: the data sets of a mixture, their languages, shots of the evaluated one."""

import re

from xlmrxl_train.checks.tasks import WITHOUT_TRAINING, faults_of_data_set
from xlmrxl_train.config import Config, DatasetConfig


def faults_of_training_sets(config: Config) -> list[str]:
    """Return what is wrong with the languages to train on, the data sets of a mixture, and shots."""
    if config.task.kind in WITHOUT_TRAINING:
        return _faults_without_training(config)
    wanted, sets = config.train.languages, config.mixture or {"": config.dataset}
    known = list(dict.fromkeys(code for dataset in sets.values() for code in dataset.languages))
    faults = []
    if unknown := [code for code in wanted if code not in known and wanted != ["all"]]:
        whose = "the mixture" if config.mixture else config.dataset.name
        faults.append(
            f"train.languages must be languages of {whose}, got {', '.join(unknown)}. It has {', '.join(known)}."
        )
    if not wanted and (config.mixture or not config.train.shots):
        faults.append("train.languages must name at least one language, got none.")
    for name, dataset in config.mixture.items():
        faults += _faults_of_one(config, f"mixture.{name}", dataset)
    return faults + _faults_of_shots(config)


def _faults_without_training(config: Config) -> list[str]:
    faults, kind = [], config.task.kind
    if config.train.languages:
        faults.append(
            f"train.languages must be empty, since {kind} trains nothing, "
            f"got {', '.join(config.train.languages)}. Set train.languages=[]."
        )
    if config.mixture or config.train.shots:
        faults.append(f"mixture and train.shots are for training, and {kind} trains nothing. Leave them out.")
    return faults


def _faults_of_shots(config: Config) -> list[str]:
    settings, evaluated = config.train, config.evaluate.languages or config.dataset.languages
    if not settings.shots:
        wrong = settings.shot_languages
        return (
            [f"train.shot_languages need train.shots, got 0 for {', '.join(wrong)}. Set train.shots."] if wrong else []
        )
    if config.mixture:
        return []  # other data sets are trained on in whole, none of this one
    trained = config.dataset.languages if settings.languages == ["all"] else settings.languages
    if twice := [code for code in settings.shot_languages if code in trained]:
        return [
            f"train.shot_languages must not be trained on in whole, got {', '.join(twice)}. Take them out of "
            "train.languages, or out of train.shot_languages."
        ]
    if not settings.shot_languages and set(evaluated) <= set(trained):
        return [
            f"train.shots={settings.shots} needs a language that is not trained on in whole, got "
            f"{', '.join(trained)}. Set train.shot_languages, or train.languages=[<source language>]."
        ]
    return []


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
