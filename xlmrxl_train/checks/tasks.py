"""What each kind of task asks of its settings, and of the roles, labels and metrics of its data set."""

from collections.abc import Callable
from string import Formatter
from typing import Any

from xlmrxl_train.config import (
    Config,
    DatasetConfig,
    FilesConfig,
    FileSet,
    LanguageModellingConfig,
    MaskedLanguageModellingConfig,
    QuestionAnsweringConfig,
    RetrievalConfig,
    SequenceClassificationConfig,
    TaskConfig,
    TokenClassificationConfig,
)


def faults_of_task(config: Config) -> list[str]:
    """Return what the kind of task finds wrong with itself, the data set's roles and labels, and the metrics."""
    task, dataset = config.task, config.dataset
    faults = faults_of_data_set(config, dataset)
    problem = task.problem_type if isinstance(task, SequenceClassificationConfig) else task.kind
    known = METRICS.get(problem)
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
    "multi_label_classification": ("micro_f1", "multilabel_macro_f1"),
    "regression": ("pearson", "spearman"),
    "multiple_choice": ("accuracy",),
    "masked_language_modelling": ("loss", "perplexity"),
    "causal_language_modelling": ("loss", "perplexity"),
    "question_answering": (
        "squad_f1",
        "squad_exact_match",
        "mlqa_f1",
        "mlqa_exact_match",
        "xquad_fair_f1",
        "xquad_fair_exact_match",
    ),
    "token_classification": ("entity_f1", "entity_f1_strict", "pos_f1", "tag_accuracy"),
    "retrieval": ("accuracy_forward", "accuracy_backward", "mining_f1"),
    "translation": ("bleu", "chrf"),
}


# The kinds of data set that a kind of task reads beside its own: text is text.
READS_TOO: dict[str, tuple[str, ...]] = {
    "causal_language_modelling": ("masked_language_modelling",),
    "translation": ("masked_language_modelling",),
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


def faults_of_labels(dataset: DatasetConfig, *, at_least: int) -> list[str]:
    """Find too few labels, labels that are there twice, and written ones that lead to none."""
    faults = []
    if len(dataset.labels) < at_least:
        faults.append(f"dataset.labels must name at least two classes, got {dataset.labels}.")
    if duplicates := sorted({label for label in dataset.labels if dataset.labels.count(label) > 1}):
        faults.append(f"dataset.labels must differ from one another, got {', '.join(duplicates)} more than once.")
    if wrong := sorted(set(dataset.label_values.values()) - set(dataset.labels)):
        faults.append(f"dataset.label_values must lead to dataset.labels, got {', '.join(wrong)}.")
    return faults


def _sets(files: FilesConfig) -> list[FileSet]:
    return [*files.train, *files.validation, *files.test]


def _faults_of_classification(task: SequenceClassificationConfig, dataset: DatasetConfig) -> list[str]:
    faults = []
    if task.problem_type not in PROBLEMS:
        faults.append(f"task.problem_type must be {' | '.join(PROBLEMS)}, got {task.problem_type!r}.")
    faults += faults_of_labels(dataset, at_least=0 if task.problem_type == "regression" else 2)
    if task.class_weights and task.problem_type != "single_label_classification":
        faults.append(f"task.class_weights are for single_label_classification, got {task.problem_type}. Remove them.")
    elif task.class_weights and len(task.class_weights) != len(dataset.labels):
        faults.append(
            f"task.class_weights must have one weight per label ({len(dataset.labels)}), got {len(task.class_weights)}."
        )
    if task.problem_type == "regression" and dataset.labels:
        faults.append(f"dataset.labels must be empty for regression, got {', '.join(dataset.labels)}. Remove them.")
    return faults + faults_of_roles(dataset, ("text", "text_pair", "label")) + missing_roles(dataset, "label", "text")


def _faults_of_token_classification(task: TokenClassificationConfig, dataset: DatasetConfig) -> list[str]:
    faults = []
    if task.long not in LONG:
        faults.append(f"task.long must be {' | '.join(LONG)}, got {task.long!r}.")
    if dataset.skip_labels:
        faults.append(
            "dataset.skip_labels leaves out rows of a classification, not words, "
            f"got {', '.join(dataset.skip_labels)}. Remove them."
        )
    faults += faults_of_labels(dataset, at_least=2)
    return faults + faults_of_roles(dataset, ("tokens", "tags")) + missing_roles(dataset, "tokens", "tags")


def _faults_of_multiple_choice(task: TaskConfig, dataset: DatasetConfig) -> list[str]:
    count, faults = len(dataset.labels), faults_of_labels(dataset, at_least=0)
    if count < 2:
        faults.append(
            f"dataset.labels must name two or more choices in order, as the data set writes them, got {dataset.labels}."
        )
    single = [f"choice{number + 1}" for number in range(count)]
    given = [role for role in dataset.columns if role.startswith("choice")]
    if count > 1 and set(given) not in ({"choices"}, set(single)):
        faults.append(
            f"dataset.columns must name one column as choices, or {count} as choice1 to choice{count}, one per label, "
            f"got {', '.join(given) or 'none'}."
        )
    if not {"context", "question"} & dataset.columns.keys():
        faults.append(f"dataset.columns must name a column for context or question, got {dataset.columns}.")
    roles = ("context", "question", *dict.fromkeys(["choices", *single, *given]), "label")
    return faults + faults_of_templates(dataset) + faults_of_roles(dataset, roles) + missing_roles(dataset, "label")


# What a template of multiple choice is made of: the context may be cut, so it stands where no choice does.
_FIELDS = {"text": ("context", "question"), "text_pair": ("question", "choice")}


def faults_of_templates(dataset: DatasetConfig) -> list[str]:
    """Return what is wrong with the templates of multiple choice."""
    faults = []
    for name, template in dataset.templates.items():
        if name not in _FIELDS:
            faults.append(f"dataset.templates has no text {name!r}. Its texts are {', '.join(_FIELDS)}.")
            continue
        allowed = [field for field in _FIELDS[name] if field == "choice" or field in dataset.columns]
        if not allowed:
            continue  # there is neither context nor question, which is said already
        rule = f"dataset.templates.{name} must be text with {' and '.join(f'{{{field}}}' for field in allowed)}"
        try:
            parts = list(Formatter().parse(template))
        except ValueError as error:
            faults.append(f"{rule}, got {template!r} ({error}). Write {{{{ for a brace.")
            continue
        used = [part[1] for part in parts if part[1] is not None]
        plain = all(not specification and not conversion for _, _, specification, conversion in parts)
        if not plain or not set(used) <= set(allowed) or len(set(used)) < len(used) or (name == "text" and not used):
            faults.append(f"{rule}, each at most once, got {template!r}.")
        elif name == "text_pair" and "choice" not in used:
            faults.append(f"dataset.templates.text_pair must have {{choice}}, got {template!r}.")
    return faults


def _faults_of_language_modelling(task: LanguageModellingConfig, dataset: DatasetConfig) -> list[str]:
    faults = []
    if isinstance(task, MaskedLanguageModellingConfig) and not 0 < task.mask_probability < 1:
        faults.append(f"task.mask_probability must be between 0 and 1, got {task.mask_probability}.")
    if task.join not in ("none", "lines", "documents"):
        faults.append(f"task.join must be none | lines | documents, got {task.join!r}.")
    elif task.join != "none" and "text_pair" in dataset.columns:
        faults.append(
            f"task.join={task.join} is for rows of one text, and {dataset.name} has pairs (the role text_pair). "
            "Set task.join=none."
        )
    return faults + faults_of_roles(dataset, ("text", "text_pair")) + missing_roles(dataset, "text")


SPECIAL_TOKENS_OF_PAIR = 4  # <s> question </s></s> context </s>


def _faults_of_question_answering(task: QuestionAnsweringConfig, dataset: DatasetConfig) -> list[str]:
    faults = [
        f"task.{name} must be greater than 0, got {value}."
        for name in ("stride", "n_best", "max_answer_length")
        if (value := getattr(task, name)) < 1
    ]
    if task.stride >= task.max_length - SPECIAL_TOKENS_OF_PAIR:
        faults.append(
            f"task.stride must be below task.max_length - {SPECIAL_TOKENS_OF_PAIR} = "
            f"{task.max_length - SPECIAL_TOKENS_OF_PAIR}, so that no token is left out, got {task.stride}. "
            "Lower task.stride or raise task.max_length."
        )
    roles = ("context", "question", "answers")
    return faults + faults_of_roles(dataset, roles) + missing_roles(dataset, "context", "question")


def _faults_of_retrieval(task: RetrievalConfig, dataset: DatasetConfig) -> list[str]:
    if "gold" in dataset.columns:
        return faults_of_roles(dataset, ("text", "side", "gold")) + missing_roles(dataset, "text", "side")
    return faults_of_roles(dataset, ("text", "text_pair")) + missing_roles(dataset, "text", "text_pair")


def _faults_of_translation(task: TaskConfig, dataset: DatasetConfig) -> list[str]:
    return faults_of_roles(dataset, ("text", "text_pair")) + missing_roles(dataset, "text", "text_pair")


_OF_KIND: dict[str, Callable[[Any, DatasetConfig], list[str]]] = {
    "sequence_classification": _faults_of_classification,
    "masked_language_modelling": _faults_of_language_modelling,
    "causal_language_modelling": _faults_of_language_modelling,
    "question_answering": _faults_of_question_answering,
    "token_classification": _faults_of_token_classification,
    "retrieval": _faults_of_retrieval,
    "multiple_choice": _faults_of_multiple_choice,
    "translation": _faults_of_translation,
}
