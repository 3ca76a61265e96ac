"""The shape of a run's model: that of its weights, or the configured one."""

from pathlib import Path
from typing import Any

from xlmrxl_train.config import ModelConfig
from xlmrxl_train.model import PreTrained, XLMRobertaXLConfig
from xlmrxl_train.tasks import Task


def model_config(settings: ModelConfig, task: Task, num_tokens: int, folder: Path | None) -> XLMRobertaXLConfig:
    """Return the shape in `folder`, or the configured one for random weights."""
    options = _given(
        settings,
        ["hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "initializer_range"],
    )
    # Whether tokens see later ones is the task's to say, not that of the run that the weights come from.
    options |= {"is_decoder": False} | task.model_options()
    if folder is not None:
        kind: type[PreTrained] = task.model_class
        return kind.read_config(folder, **options)
    options |= _given(
        settings,
        [
            "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings",
            "layer_norm_eps",
        ],
    )  # fmt: skip
    return XLMRobertaXLConfig(vocab_size=settings.vocab_size or num_tokens, **options)


def _given(settings: ModelConfig, names: list[str]) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in names if getattr(settings, name) is not None}
