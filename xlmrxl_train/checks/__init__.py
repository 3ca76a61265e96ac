"""What a configuration must be: rules for single keys and between keys, all faults reported together.

Only what the configuration itself shows is looked at: no file is opened, no device asked.
"""

import math
import re
from typing import Any

from xlmrxl_train.checks.optimizing import faults_of_optimizing
from xlmrxl_train.checks.tasks import READS_TOO, faults_of_task
from xlmrxl_train.checks.training_sets import faults_of_training_sets
from xlmrxl_train.checks.tuning import TARGETS, faults_of_tuning
from xlmrxl_train.config import Config, Zero3NvmeConfig, leaves, lengths_of
from xlmrxl_train.errors import ConfigError

_TRACKERS = ("wandb", "tensorboard", "mlflow", "trackio")

# Keys that take one of a few words.
CHOICES: dict[str, tuple[str, ...]] = {
    "data.source": ("auto", "hub", "files", "sample"),
    "train.precision": ("bf16", "fp32"),
    "train.matmul": ("bf16", "fp8"),
    "train.shot_split": ("auto", "train", "validation"),
    "strategy.device": ("auto", "cpu", "cuda"),
    "model.embeddings": ("auto", "trainable", "active", "frozen"),
    "model.attn_implementation": ("auto", "grouped", "sdpa", "varlen", "eager"),
    "optimizer.name": ("adamw", "adamw_8bit"),
    "schedule.name": ("linear", "cosine", "constant"),
    "evaluate.select": ("best", "last"),
    "tracker.mode": ("online", "offline", "disabled"),
}


def faults_of(config: Config) -> list[str]:
    """Return every fault of a configuration, one line each; an empty list means that it can run.

    Only what the configuration itself shows is looked at: no file is opened, no device asked.
    """
    return faults_of_values(config) + _faults_between_keys(config)


def faults_of_values(config: Config) -> list[str]:
    """Return the faults that a key shows on its own, whatever the others are."""
    values = dict(leaves(config))
    faults = [
        f"{name} must be {' | '.join(choices)}, got {_shown(values[name])}."
        for name, choices in CHOICES.items()
        if values[name] not in choices
    ]
    faults += [
        f"{name} must be at most {_LARGEST:,}, got {value:,}."
        for name, value in values.items()
        if isinstance(value, int) and value > _LARGEST and name != "seed"
    ]
    return faults + [
        f"{name} must be {rule}, got {_shown(values[name])}."
        for name, (rule, holds) in _RULES.items()
        if values.get(name) is not None and not holds(values[name])  # some keys belong to one choice only
    ]


def check(config: Config) -> None:
    """Raise `ConfigError` with all faults of `config`, if there are any."""
    if faults := faults_of(config):
        raise ConfigError(*faults)


_LARGEST = 1 << 40  # no count of steps, tokens or rows comes near it; beyond sys.maxsize functions fail


def _is_folder_name(name: str) -> bool:
    return bool(name) and ".." not in name.split("/") and _fits(name)


def _fits(path: str) -> bool:
    """Whether Linux's file systems take it, and what a run appends to it."""
    longest = max(len(part.encode(errors="replace")) for part in path.split("/"))
    return longest <= 250 and len(path) <= 3800 and "\0" not in path


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}... ({len(text):,} characters)"


def _positive(value: float) -> bool:
    return value > 0


def _not_negative(value: float) -> bool:
    return value >= 0


def _probability(value: float) -> bool:
    return 0 <= value < 1


_RULES: dict[str, tuple[str, Any]] = {
    **dict.fromkeys(
        (
            "model.vocab_size",
            "model.hidden_size",
            "model.num_hidden_layers",
            "model.num_attention_heads",
            "model.intermediate_size",
            "model.layer_norm_eps",
            "data.limit",
            "strategy.timeout_minutes",
            "optimizer.lr",
            "optimizer.head_lr",
            "optimizer.unfreeze_every",
            "model.suggested_lr",
            "tuning.suggested_lr",
            "tuning.rank",
            "tuning.alpha",
            "tuning.layers",
            "optimizer.eps",
            "train.epochs",
            "strategy.bucket_mb",
            "strategy.reduce_bucket_mb",
            "strategy.allgather_bucket_mb",
            "strategy.shard_size",
            "strategy.hierarchical_size",
            "strategy.sub_group_mb",
            "train.max_steps",
            "train.batch_size",
            "train.checkpoint_every",
            "train.keep_checkpoints",
            "train.max_hours",
            "train.max_skipped",
            "train.patience",
            "train.log_every",
            "evaluate.tokens_per_batch",
            "plan.nodes",
            "plan.length",
            "plan.examples",
        ),
        ("greater than 0", _positive),
    ),
    "train.tokens_per_micro_batch": ("greater than 0, or auto", lambda value: value == "auto" or value > 0),
    "plan.efficiency": ("above 0 and at most 1", lambda value: 0 < value <= 1),
    **dict.fromkeys(
        (
            "model.initializer_range",
            "optimizer.weight_decay",
            "optimizer.unfreeze_after",
            "schedule.warmup",
            "train.max_grad_norm",
            "train.min_delta",
            "evaluate.every",
            "evaluate.bootstrap",
            "strategy.watchdog_minutes",
            "strategy.prefetch_layers",
            "strategy.prefetch_mb",
            "strategy.persistence_kb",
            "strategy.max_live_mb",
            "strategy.max_reuse_distance_mb",
            "train.shots",
            "seed",
        ),
        ("0 or more", _not_negative),
    ),
    **dict.fromkeys(
        (
            "model.hidden_dropout_prob",
            "model.attention_probs_dropout_prob",
            "model.classifier_dropout",
            "tuning.dropout",
        ),
        ("at least 0 and below 1", _probability),
    ),
    "model.max_position_embeddings": ("greater than 2 (two positions are never used)", lambda value: value > 2),
    "run.name": ("a folder's name of 1 to 250 characters, without ..", _is_folder_name),
    "run.dir": ("a folder, with names of at most 250 characters", lambda value: bool(value) and _fits(value)),
    "strategy.nvme_path": ("an absolute path", lambda value: value.startswith("/") and _fits(value)),
    "schedule.final": ("between 0 and 1", lambda value: 0 <= value <= 1),
    "train.recompute": (
        "none | full | selective | every_<n> with n from 2 | auto",
        lambda value: re.fullmatch(r"none|full|selective|every_([2-9]|[1-9]\d+)|auto", value) is not None,
    ),
    "optimizer.betas": (
        "two numbers, each at least 0 and below 1",
        lambda value: len(value) == 2 and all(0 <= beta < 1 for beta in value),
    ),
    "optimizer.layer_decay": ("above 0 and at most 1", lambda value: 0 < value <= 1),
    "tuning.weights": ("int8 | nf4 or null", lambda value: value in ("int8", "nf4")),
    "tuning.targets": (
        f"some of {', '.join(TARGETS)}, each once",
        lambda value: bool(value) and set(value) <= set(TARGETS) and len(value) == len(set(value)),
    ),
    "train.sampling_temperature": ("1 or more", lambda value: value >= 1),
    "task.max_length": ("at least 8", lambda value: value >= 8),
    "task.max_target_length": ("at least 8", lambda value: value >= 8),
    "train.languages": ("languages, each once", lambda value: len(value) == len(set(value))),
    "train.shot_languages": ("languages, each once", lambda value: len(value) == len(set(value))),
    "task.pooling": ("mean | first", lambda value: value in ("mean", "first")),
    "task.layer": ("0 or more", _not_negative),
    "task.neighbours": ("greater than 0", _positive),
    "evaluate.languages": ("languages, each once", lambda value: len(value) == len(set(value))),
    "evaluate.select_languages": ("languages, each once", lambda value: len(value) == len(set(value))),
    "evaluate.submission": ("xtreme or null", lambda value: value == "xtreme"),
    "task.class_weights": ("finite numbers above 0", lambda value: all(0 < weight < math.inf for weight in value)),
    "tracker.names": (
        f"{' | '.join(_TRACKERS)}, each at most once",
        lambda value: set(value) <= set(_TRACKERS) and len(set(value)) == len(value),
    ),
    "tracker.project": (
        "1 to 128 characters, none of / \\ # ? % :",
        lambda value: 0 < len(value) <= 128 and not set(value) & set("/\\#?%:"),
    ),
    "tracker.tags": ("words of 1 to 64 characters", lambda value: all(0 < len(tag) <= 64 for tag in value)),
}


def _faults_of_shape(config: Config) -> list[str]:
    faults, model = [], config.model
    if model.hidden_size and model.num_attention_heads and model.hidden_size % model.num_attention_heads:
        faults.append(
            f"model.hidden_size must be a multiple of model.num_attention_heads, "
            f"got {model.hidden_size} and {model.num_attention_heads}."
        )
    positions = (model.max_position_embeddings or 0) - 2
    return faults + [
        f"{key} must be at most model.max_position_embeddings - 2 = {positions}, got {length}."
        for key, length in lengths_of(config.task).items()
        if 0 < positions < length
    ]


def _faults_between_keys(config: Config) -> list[str]:
    faults, dataset = _faults_of_shape(config), config.dataset
    if isinstance(config.strategy, Zero3NvmeConfig) and config.strategy.nvme_path is None:
        faults.append("strategy.nvme_path must be a folder on a local disk, got null. Give strategy.nvme_path.")
    budget = config.train.tokens_per_micro_batch
    if isinstance(budget, int) and budget < config.task.max_length:
        faults.append(
            f"train.tokens_per_micro_batch must hold a sequence of task.max_length = {config.task.max_length} tokens, "
            f"got {budget}."
        )
    if dataset.kind not in (config.task.kind, *READS_TOO.get(config.task.kind, ())):
        faults.append(
            f"task={config.task.kind} cannot read dataset {dataset.name!r}, whose kind is {dataset.kind!r}. "
            f"Choose task={dataset.kind}."
        )
    for name, codes in (
        ("evaluate.languages", config.evaluate.languages),
        ("evaluate.select_languages", config.evaluate.select_languages),
        ("train.shot_languages", config.train.shot_languages),
    ):
        if unknown := [code for code in codes if code not in dataset.languages]:
            faults.append(
                f"{name} must be languages of {dataset.name}, got {', '.join(unknown)}. "
                f"It has {', '.join(dataset.languages)}."
            )
    if config.evaluate.submission and not (config.evaluate.test and config.evaluate.predictions):
        faults.append(
            "evaluate.submission needs evaluate.test=true and evaluate.predictions=true, "
            f"got {str(config.evaluate.test).lower()} and {str(config.evaluate.predictions).lower()}. Set both, or "
            "evaluate.submission=null."
        )
    if not dataset.languages:
        faults.append("dataset.languages must name at least one language, got none.")
    prefixes = dataset.hub.id_prefixes if dataset.hub else {}
    if prefixes and (missing := [code for code in dataset.languages if not prefixes.get(code)]):
        faults.append(f"dataset.hub.id_prefixes must have one for every language, got none for {', '.join(missing)}.")
    if prefixes and dataset.id_column is None:
        faults.append("dataset.hub.id_prefixes needs dataset.id_column, got null. Name the column with the ids.")
    if config.data.source == "files" and not config.data.root:
        faults.append("data.source=files needs data.root, got null. Set data.root=<folder of the data set's files>.")
    for source in ("hub", "files", "sample"):
        if config.data.source == source and getattr(dataset, source) is None:
            faults.append(f"data.source={source} needs dataset.{source}, which {dataset.name or 'the data set'} lacks.")
    faults += faults_of_optimizing(config) + faults_of_training_sets(config)
    return faults + faults_of_task(config) + faults_of_tuning(config)
