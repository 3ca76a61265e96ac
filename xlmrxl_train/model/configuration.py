"""The shape of a model, under the names that the Hub's config.json uses."""

import dataclasses
import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xlmrxl_train.errors import CheckpointError, ConfigError

MODEL_TYPE = "xlm-roberta-xl"
ATTENTION_BACKENDS = ("auto", "grouped", "sdpa", "varlen", "eager")
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")


@dataclass(kw_only=True, slots=True)
class XLMRobertaXLConfig:
    """Describe a model; the defaults are those of XLM-R XL.

    Keys of a config.json that are not fields here are kept in `extra` and written back unchanged.

    Raises:
        ConfigError: A value is out of its range; all faults are reported together.

    Source: transformers 5.23, models/xlm_roberta_xl/configuration_xlm_roberta_xl.py.
    """

    vocab_size: int = 250880
    hidden_size: int = 2560
    num_hidden_layers: int = 36
    num_attention_heads: int = 32
    intermediate_size: int = 10240
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    classifier_dropout: float | None = None
    """Dropout of the classification heads; None takes `hidden_dropout_prob`."""
    max_position_embeddings: int = 514
    """Rows of the position table; the longest sequence is this minus `pad_token_id` minus 1."""
    type_vocab_size: int = 1
    initializer_range: float = 0.02
    """Standard deviation of new weights."""
    layer_norm_eps: float = 1e-5
    pad_token_id: int = 1
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 2
    is_decoder: bool = False
    add_cross_attention: bool = False
    use_cache: bool = True
    tie_word_embeddings: bool = True
    num_labels: int = 2
    id2label: dict[int, str] | None = None
    """Names of the labels; None names them LABEL_0, LABEL_1, … as the Hub does."""
    label2id: dict[str, int] | None = None
    problem_type: str | None = None
    class_weights: list[float] | None = None
    """One weight per class of a single-label loss (not a Hub key, but kept by it)."""
    attn_implementation: str = "auto"
    """Attention backend; a choice of the run, so it is not written to config.json."""
    extra: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if faults := _type_faults(self):
            raise ConfigError(*faults, *_faults(self))
        if self.id2label is not None:
            self.id2label = {int(index): name for index, name in self.id2label.items()}
            self.num_labels = len(self.id2label)
        else:
            self.id2label = {index: f"LABEL_{index}" for index in range(self.num_labels)}
        if self.label2id is None:
            self.label2id = {name: index for index, name in self.id2label.items()}
        faults = list(_faults(self))
        if faults:
            raise ConfigError(*faults)

    @property
    def head_size(self) -> int:
        """Features of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @classmethod
    def from_dict(cls, values: Mapping[str, object], **overrides: object) -> "XLMRobertaXLConfig":
        """Read the Hub's keys, let `overrides` win, and keep unknown keys of `values` in `extra`.

        Args:
            values: The content of a config.json.
            overrides: Field names only; a change of `num_labels` drops the old label names.

        Raises:
            ConfigError: An override is not a field, or a value is out of range.
        """
        names = {entry.name for entry in dataclasses.fields(cls)} - {"extra"}
        faults = [_unknown(key, names) for key in overrides if key not in names]
        model_type = values.get("model_type", MODEL_TYPE)
        if model_type != MODEL_TYPE:
            faults.append(
                f'model_type must be "{MODEL_TYPE}", got "{model_type}". Other architectures have other layers; '
                "choose a checkpoint of XLM-RoBERTa-XL or XXL."
            )
        if faults:
            raise ConfigError(*faults)
        known = {key: value for key, value in values.items() if key in names}
        if "num_labels" in overrides:
            labels = known.get("id2label")
            if not isinstance(labels, Mapping) or len(labels) != overrides["num_labels"]:
                known.pop("id2label", None)
                known.pop("label2id", None)
        if "id2label" in overrides:
            known.pop("label2id", None)
            known.pop("num_labels", None)
        extra = {key: value for key, value in values.items() if key not in names and key != "model_type"}
        return cls(**{**known, **overrides}, extra=extra)  # type: ignore[arg-type]

    @classmethod
    def from_json_file(cls, path: str | Path, **overrides: object) -> "XLMRobertaXLConfig":
        """Read a config.json.

        Raises:
            CheckpointError: The file is missing or is not a JSON object.
            ConfigError: As `from_dict`.
        """
        values = read_config_file(Path(path))
        try:
            return cls.from_dict(values, **overrides)
        except ConfigError as error:
            faults = [fault if fault.partition(" ")[0] in overrides else f"{path}: {fault}" for fault in error.faults]
            raise ConfigError(*faults) from None

    def to_dict(self, architecture: str | None = None) -> dict[str, object]:
        """Return what config.json holds, readable by transformers' AutoModel.

        Args:
            architecture: Class name of the model; None keeps what was read.
        """
        values: dict[str, object] = dict(self.extra)
        for entry in dataclasses.fields(self):
            if entry.name not in ("extra", "attn_implementation", "num_labels"):
                values[entry.name] = getattr(self, entry.name)
        values["id2label"] = {str(index): name for index, name in (self.id2label or {}).items()}
        if self.class_weights is None:
            del values["class_weights"]
        if architecture is not None:
            values["architectures"] = [architecture]
        values["model_type"] = MODEL_TYPE
        return dict(sorted(values.items()))


def read_config_file(path: Path) -> dict[str, Any]:
    """Return what a config.json holds.

    Raises:
        CheckpointError: The file is missing or is not a JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist. Give a folder that holds config.json and weights.") from None
    except (ValueError, RecursionError, OSError) as error:  # also a number of too many digits
        raise CheckpointError(f"{path} must be JSON, got {error}. Download it again.") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got {type(values).__name__}. Download it again.")
    return values


def _unknown(key: str, names: set[str]) -> str:
    nearest = difflib.get_close_matches(key, names, n=1)
    hint = f'Did you mean "{nearest[0]}"?' if nearest else f"Choose one of {', '.join(sorted(names))}."
    return f'{key} must be a key of the model configuration, got "{key}". {hint}'


_SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
          "max_position_embeddings", "type_vocab_size", "num_labels")  # fmt: skip
_LARGEST = dict.fromkeys(_SIZES, 1 << 24) | {"num_hidden_layers": 1000, "num_labels": 1 << 20}
"""What no model has: a file that claims more is wrong, and building it would take the memory."""


def _type_faults(config: XLMRobertaXLConfig) -> list[str]:
    """Look at what a config.json may hold in place of numbers and mappings, before anything is made of it."""
    faults = []
    for key in _SIZES:
        value = getattr(config, key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            faults.append(
                f"{key} must be an integer of at least 1, got {value!r}. Take the Hub's value or a larger one."
            )
        elif value > _LARGEST[key]:
            faults.append(f"{key} must be at most {_LARGEST[key]}, got {value}. Check the config.json.")
    for key in ("layer_norm_eps", "initializer_range"):
        value = getattr(config, key)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
            faults.append(f"{key} must be a number in [0, 1), got {value!r}. Take the Hub's value.")
    for key in ("is_decoder", "add_cross_attention", "tie_word_embeddings", "use_cache"):
        if not isinstance(getattr(config, key), bool):
            faults.append(f"{key} must be true or false, got {getattr(config, key)!r}. Take the Hub's value.")
    if type(config.pad_token_id) is not int:
        faults.append(f"pad_token_id must be an integer, got {config.pad_token_id!r}. XLM-R uses 1.")
    names: Any = config.id2label  # as a config.json may have it, whatever the fields' types say
    if names is not None and not (
        isinstance(names, Mapping)
        and all(
            str(index).isdecimal() and len(str(index)) < 10 and isinstance(name, str) for index, name in names.items()
        )
    ):
        faults.append(f"id2label must map numbers to names, got {str(names)[:80]}. Leave it out, or mend it.")
    elif names is not None and sorted(map(int, names)) != list(range(len(names))):
        faults.append(f"id2label must number its names from 0 without gaps, got {str(names)[:80]}. Mend it.")
    ids: Any = config.label2id
    if ids is not None and not isinstance(ids, Mapping):
        faults.append(f"label2id must map names to numbers, got {str(ids)[:80]}. Leave it out, or mend it.")
    weights: Any = config.class_weights
    if weights is not None and not (
        isinstance(weights, list | tuple) and all(isinstance(weight, int | float) for weight in weights)
    ):
        faults.append(f"class_weights must be a list of numbers, got {str(weights)[:80]}. Give one per class.")
    return faults


def _faults(config: XLMRobertaXLConfig) -> Sequence[str]:
    faults: list[str] = []
    for key in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
        value = getattr(config, key)
        if value is not None and (not isinstance(value, int | float) or not 0.0 <= value < 1.0):
            faults.append(f"{key} must be in [0, 1), got {value!r}. Use 0 to switch dropout off.")
    if not faults and not _type_faults(config) and config.hidden_size % config.num_attention_heads:
        faults.append(
            f"hidden_size must be a multiple of num_attention_heads ({config.num_attention_heads}), "
            f"got {config.hidden_size}. Change one of the two."
        )
    faults += _choice_faults(config)
    return faults


def _choice_faults(config: XLMRobertaXLConfig) -> Sequence[str]:
    faults: list[str] = []
    if config.hidden_act != "gelu":
        faults.append(f'hidden_act must be "gelu" (exact, erf), got "{config.hidden_act}". Its weights need it.')
    if config.problem_type is not None and config.problem_type not in PROBLEM_TYPES:
        faults.append(
            f'problem_type must be one of {", ".join(PROBLEM_TYPES)} or null, got "{config.problem_type}". '
            "With null it follows from num_labels and the type of the labels."
        )
    if config.attn_implementation not in ATTENTION_BACKENDS:
        faults.append(
            f'attn_implementation must be one of {", ".join(ATTENTION_BACKENDS)}, got "{config.attn_implementation}". '
            '"auto" picks per device.'
        )
    if config.add_cross_attention and not config.is_decoder:
        faults.append("add_cross_attention must be false unless is_decoder is true, got true. Set is_decoder=true.")
    if _type_faults(config):  # the rest compares what may not be numbers
        return faults
    if not 0 <= config.pad_token_id < config.vocab_size:
        faults.append(
            f"pad_token_id must be a row of the vocabulary (0 to {config.vocab_size - 1}), got {config.pad_token_id!r}."
            " XLM-R uses 1."
        )
    if config.class_weights is not None and len(config.class_weights) != config.num_labels:
        faults.append(
            f"class_weights must have num_labels ({config.num_labels}) numbers, got {len(config.class_weights)}. "
            "Give one weight per class."
        )
    return faults
