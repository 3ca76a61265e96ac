"""What each kind of task asks of its settings, and of the roles, labels and metrics of its data set."""

from collections.abc import Callable
from typing import Any

from xlmrxl_train.config import (
    Config,
    DatasetConfig,
    FilesConfig,
    FileSet,
    MaskedLanguageModellingConfig,
    RetrievalConfig,
    SequenceClassificationConfig,
    TokenClassificationConfig,
)


def faults_of_task(config: Config) -> list[str]:
    """Return what the kind of task finds wrong with itself, the data set's roles and labels, and the metrics."""
    task, dataset = config.task, config.dataset
    faults = faults_of_data_set(config, dataset)
    problem = task.problem_type if isinstance(task, SequenceClassificationConfig) else task.kind
    known = METRICS.get(problem)
    if known is None and problem in PROBLEMS:
        faults.append(
            f"task.problem_type={problem} has no metric yet, so that a run cannot be scored. "
            "Use single_label_classification."
        )
    if known and (wrong := [name for name in dataset.metrics if name not in known]):
        faults.append(
            f"dataset.metrics must suit the task ({', '.join(known)}), got {', '.join(wrong)}. "
            "Choose others, or leave them out."
        )
    return faults


def faults_of_data_set(config: Config, dataset: DatasetConfig) -> list[str]:
    """Return what the kind of task finds wrong with its settings and with the roles and labels of a data set."""
    task = config.task
    return _OF_KIND[task.kind](task, dataset) if task.kind in _OF_KIND else []


WITHOUT_TRAINING = ("retrieval",)
PROBLEMS = ("single_label_classification", "multi_label_classification", "regression")
LONG = ("split", "truncate")  # what becomes of a long sentence of words with labels
# What can be computed from the predictions of a problem, the default ones first.
METRICS: dict[str, tuple[str, ...]] = {
    "single_label_classification": ("accuracy", "macro_f1"),
    "masked_language_modelling": ("perplexity",),
    "token_classification": ("entity_f1", "entity_f1_strict", "pos_f1", "tag_accuracy"),
    "retrieval": ("accuracy_forward", "accuracy_backward", "mining_f1"),
}


def faults_of_roles(dataset: DatasetConfig, roles: tuple[str, ...]) -> list[str]:
    """Find roles that nothing reads: a misspelt text_pair would leave the second text out."""
    sets = [files for place in (dataset.files, dataset.sample) if place for files in _sets(place)]
    named = [dataset.columns, *(files.columns for files in sets), dataset.hub.columns if dataset.hub else {}]
    unknown = dict.fromkeys(role for columns in named for role in columns if role not in roles)
    return [f"dataset.columns has no role {role!r}. Its roles are {', '.join(roles)}." for role in unknown]


def missing_roles(dataset: DatasetConfig, *roles: str) -> list[str]:
    """Find roles without which the task has nothing to read."""
    missing = [role for role in roles if role not in dataset.columns]
    if not missing:
        return []
    return [
        f"dataset.columns must name a column for {' and '.join(missing)}, got {dataset.columns}. "
        f"Add {', '.join(f'{role}: <column>' for role in missing)}."
    ]


def _sets(files: FilesConfig) -> list[FileSet]:
    return [*files.train, *files.validation, *files.test]


def _faults_of_classification(task: SequenceClassificationConfig, dataset: DatasetConfig) -> list[str]:
    faults = []
    if task.problem_type not in PROBLEMS:
        faults.append(f"task.problem_type must be {' | '.join(PROBLEMS)}, got {task.problem_type!r}.")
    faults += _faults_of_labels(dataset, at_least=0 if task.problem_type == "regression" else 2)
    if task.class_weights and task.problem_type != "single_label_classification":
        faults.append(f"task.class_weights are for single_label_classification, got {task.problem_type}. Remove them.")
    elif task.class_weights and len(task.class_weights) != len(dataset.labels):
        faults.append(
            f"task.class_weights must have one weight per label ({len(dataset.labels)}), got {len(task.class_weights)}."
        )
    if task.problem_type == "regression" and dataset.labels:
        faults.append(f"dataset.labels must be empty for regression, got {', '.join(dataset.labels)}. Remove them.")
    return faults + faults_of_roles(dataset, ("text", "text_pair", "label")) + missing_roles(dataset, "label", "text")


def _faults_of_labels(dataset: DatasetConfig, at_least: int) -> list[str]:
    faults = []
    if len(dataset.labels) < at_least:
        faults.append(f"dataset.labels must name at least two classes, got {dataset.labels}.")
    if duplicates := sorted({label for label in dataset.labels if dataset.labels.count(label) > 1}):
        faults.append(f"dataset.labels must differ from one another, got {', '.join(duplicates)} more than once.")
    if wrong := sorted(set(dataset.label_values.values()) - set(dataset.labels)):
        faults.append(f"dataset.label_values must lead to dataset.labels, got {', '.join(wrong)}.")
    return faults


def _faults_of_token_classification(task: TokenClassificationConfig, dataset: DatasetConfig) -> list[str]:
    faults = []
    if task.long not in LONG:
        faults.append(f"task.long must be {' | '.join(LONG)}, got {task.long!r}.")
    if dataset.skip_labels:
        faults.append(
            "dataset.skip_labels leaves out rows of a classification, not words, "
            f"got {', '.join(dataset.skip_labels)}. Remove them."
        )
    faults += _faults_of_labels(dataset, at_least=2)
    return faults + faults_of_roles(dataset, ("tokens", "tags")) + missing_roles(dataset, "tokens", "tags")


def _faults_of_masked_language_modelling(task: MaskedLanguageModellingConfig, dataset: DatasetConfig) -> list[str]:
    faults = []
    if not 0 < task.mask_probability < 1:
        faults.append(f"task.mask_probability must be between 0 and 1, got {task.mask_probability}.")
    return faults + faults_of_roles(dataset, ("text", "text_pair")) + missing_roles(dataset, "text")


def _faults_of_retrieval(task: RetrievalConfig, dataset: DatasetConfig) -> list[str]:
    if "gold" in dataset.columns:
        return faults_of_roles(dataset, ("text", "side", "gold")) + missing_roles(dataset, "text", "side")
    return faults_of_roles(dataset, ("text", "text_pair")) + missing_roles(dataset, "text", "text_pair")


_OF_KIND: dict[str, Callable[[Any, DatasetConfig], list[str]]] = {
    "sequence_classification": _faults_of_classification,
    "masked_language_modelling": _faults_of_masked_language_modelling,
    "token_classification": _faults_of_token_classification,
    "retrieval": _faults_of_retrieval,
}
