"""The data sets that a run trains on: the one that is evaluated, those of a mixture, a few examples of a language."""

from dataclasses import dataclass

from xlmrxl_train.config import Config, DatasetConfig
from xlmrxl_train.data.sources import Source, open_source
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.tasks import Task, make_task


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSet:
    """A data set to train on, and what reads it."""

    key: str  # its name in Config.mixture; "": it is Config.dataset
    config: DatasetConfig
    source: Source
    task: Task
    languages: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shots:
    """The few examples of a language that are trained on."""

    split: str  # what they are of
    ids: list[str]


def chance_loss(sets: list[TrainingSet]) -> float | None:
    """Return the mean loss of guessing; None where there is none, or where data sets differ in it."""
    losses = {training.task.chance_loss for training in sets}
    return losses.pop() if len(losses) == 1 else None


def open_training_sets(config: Config, source: Source, task: Task) -> list[TrainingSet]:
    """Return the data sets to train on: those of the mixture, or else the one that is evaluated.

    Raises:
        ConfigError: A data set lacks the source, or a training split in any of the languages.
    """
    wanted = config.train.languages
    if not config.mixture:
        languages = list(config.dataset.languages if wanted == ["all"] else wanted)
        return [TrainingSet(key="", config=config.dataset, source=source, task=task, languages=languages)]
    sets = []
    for key, dataset in config.mixture.items():
        its_source = open_source(dataset, config.data)
        offered = [code for code in dataset.languages if its_source.has("train", code)]
        languages = offered if wanted == ["all"] else [code for code in wanted if code in offered]
        if not languages:
            raise ConfigError(
                f"mixture.{key} must have a training split in one of train.languages ({', '.join(wanted)}), "
                f"got {', '.join(offered) or 'none'} of {dataset.name}. Choose other languages, or leave it out."
            )
        encoder = make_task(config.task, dataset, task.tokenizer)
        sets.append(TrainingSet(key=key, config=dataset, source=its_source, task=encoder, languages=languages))
    offered = [code for training in sets for code in training.languages]
    if missing := [code for code in wanted if wanted != ["all"] and code not in offered]:
        raise ConfigError(
            f"train.languages must have a training split in the mixture, got {', '.join(missing)}. "
            f"It has {', '.join(dict.fromkeys(offered))}."
        )
    return sets
