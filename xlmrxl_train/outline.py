"""A run's model before anything is known of its weights: shapes, and how it computes."""

from pathlib import Path
from typing import Any

import torch

from xlmrxl_train.config import Config, ModelConfig
from xlmrxl_train.model import PreTrained, XLMRobertaXLConfig, XLMRobertaXLModel
from xlmrxl_train.model.encoder import XLMRobertaXLEncoder
from xlmrxl_train.tasks import Task


def plain_model(config: Config, task: Task, num_tokens: int, folder: Path | None) -> PreTrained:
    """Return the task's model on the meta device, all of it trained.

    Args:
        config: Of the run.
        task: What it is for.
        num_tokens: Of the tokenizer; rows of an embedding that neither `folder` nor the configuration sizes.
        folder: With config.json, which says the shape; None: the configuration does.
    """
    with torch.device("meta"):
        model: PreTrained = task.model_class(_model_config(config.model, task, num_tokens, folder))
    model.attn_implementation = config.model.attn_implementation
    for module in model.modules():
        if isinstance(module, XLMRobertaXLEncoder) and config.train.recompute != "auto":
            module.recompute = config.train.recompute
        if isinstance(module, XLMRobertaXLModel):
            module.residual_dtype = torch.float32  # also where an engine holds weights in bf16
    return model


def _model_config(settings: ModelConfig, task: Task, num_tokens: int, folder: Path | None) -> XLMRobertaXLConfig:
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
