"""A whole run, and its form in a file."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from xlmrxl_train.config.data import DataConfig, DatasetConfig
from xlmrxl_train.config.keys import key
from xlmrxl_train.config.model import ModelConfig, TokenizerConfig
from xlmrxl_train.config.strategies import STRATEGY_CLASSES, StrategyConfig
from xlmrxl_train.config.surroundings import EvaluateConfig, PlanConfig, RunConfig, TrackerConfig
from xlmrxl_train.config.tasks import TASK_CLASSES, TaskConfig
from xlmrxl_train.config.training import GuardConfig, OptimizerConfig, ScheduleConfig, TrainConfig
from xlmrxl_train.config.tuning import TUNING_CLASSES, TuningConfig
from xlmrxl_train.errors import ConfigError


@dataclass(kw_only=True, slots=True)
class Config:
    """A whole run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    mixture: dict[str, DatasetConfig] = key(
        {}, "data sets to train on in place of dataset's training split: name -> data set; mixture.<name>=<data set>"
    )
    data: DataConfig = field(default_factory=DataConfig)
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    tuning: TuningConfig = field(default_factory=TuningConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
    run: RunConfig = field(default_factory=RunConfig)
    seed: int = key(1, "of data order, dropout, masks and new weights")


# The classes that a choice of these groups selects; a key of another choice is refused.
VARIANTS: dict[str, dict[str, type]] = {
    "task": TASK_CLASSES,
    "strategy": STRATEGY_CLASSES,
    "tuning": TUNING_CLASSES,
}

# Keys that may differ between the sessions of one run: they change where and how fast it runs, not what it computes.
FREE = (
    "run.",
    "data.root",
    "data.cache",
    "strategy.",
    "tracker.",
    "plan.",
    "tuning.merge",
    "tuning.suggested_lr",
    "tokenizer.path",  # its content is compared through environment.json
    "model.attn_implementation",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.max_hours",
    "train.profile",
    "train.max_skipped",
    "train.log_every",
    "train.recompute",
    "train.save_model",
    "train.tokens_per_micro_batch",
    "evaluate.tokens_per_batch",
    "evaluate.bootstrap",
    "evaluate.predictions",
    "evaluate.html",
    "evaluate.submission",
)


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every key below `config` with its value: ("train.batch_size", 32)."""
    for item in fields(config):
        value, name = getattr(config, item.name), f"{prefix}{item.name}"
        if is_dataclass(value):
            yield from leaves(value, f"{name}.")
        elif isinstance(value, dict) and value and all(is_dataclass(inner) for inner in value.values()):
            for inner_name, inner in value.items():
                yield from leaves(inner, f"{name}.{inner_name}.")
        else:
            yield name, value


def to_dict(config: Config) -> dict[str, Any]:
    """Return plain dictionaries, lists and scalars, as config.yaml holds them."""
    return asdict(config)


def from_dict(values: dict[str, Any]) -> Config:
    """Read back what `to_dict` wrote.

    Raises:
        ConfigError: A key is unknown (the file is from another version or was edited).
    """
    return _build(Config, values, "")  # type: ignore[no-any-return]


def _build(kind: type, values: dict[str, Any], prefix: str) -> Any:
    known = {item.name: item for item in fields(kind)}
    if unknown := [f"{prefix}{name}" for name in values if name not in known]:
        raise ConfigError(*(f"{name} is not a key of this version. Remove it." for name in unknown))
    hints = get_type_hints(kind)
    return kind(**{name: _value(hints[name], value, f"{prefix}{name}") for name, value in values.items()})


def _value(hint: Any, value: Any, name: str) -> Any:
    candidates = [hint, *get_args(hint)]
    inner: Any = next((candidate for candidate in candidates if is_dataclass(candidate)), None)
    if inner is None or value is None:
        return value
    if get_origin(hint) is dict:
        return {inner_name: _build(inner, item, f"{name}.{inner_name}.") for inner_name, item in value.items()}
    if isinstance(value, list):
        return [_build(inner, item, f"{name}.{index}.") for index, item in enumerate(value)]
    variants = VARIANTS.get(name, {})
    choice = value.get("kind" if name == "task" else "name")
    return _build(variants.get(choice, inner), value, f"{name}.")
