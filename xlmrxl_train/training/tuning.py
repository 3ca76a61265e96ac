"""Which parameters of a model learn, by name."""

from xlmrxl_train.config import BiasTuningConfig, LastLayersTuningConfig, LoraTuningConfig, TuningConfig
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.model import PreTrained
from xlmrxl_train.model.source import ParameterSource


def tune(model: PreTrained, source: ParameterSource, tuning: TuningConfig) -> ParameterSource:
    """Freeze what does not learn, and add the adapters that do. The embedding learns under `full` alone.

    Args:
        model: On the meta device.
        source: Of its values.
        tuning: What is to learn.

    Returns:
        Where the values of the model as it is now come from.

    Raises:
        ConfigError: The model has fewer layers than are to learn, or a package is missing.
    """
    if tuning.name == "full":
        return source
    learning: tuple[str, ...] = tuple(f"{head}." for head in learning_heads(model))
    part: str | None = None  # of a name that learns
    if isinstance(tuning, LoraTuningConfig):
        from xlmrxl_train.training.adapters import add_adapters  # late: an optional package

        source, part = add_adapters(model, source, tuning), ".lora_"
    elif isinstance(tuning, LastLayersTuningConfig):
        learning += _last_layers(model, tuning.layers)
    elif isinstance(tuning, BiasTuningConfig):
        part = ".bias"
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(learning) or (part is not None and part in name))
    return source


def learning_heads(model: PreTrained) -> list[str]:
    """Return the modules of the head; of a vocabulary's those that are not tied to the embedding."""
    tied = [alias.rpartition(".")[0] for alias in model.tied_weights()]
    heads = []
    for head in model.head_modules:
        if any(owner.startswith(f"{head}.") for owner in tied):
            children = (f"{head}.{name}" for name, _ in model.get_submodule(head).named_children())
            heads += [name for name in children if name not in tied]
        else:
            heads.append(head)
    return heads


def _last_layers(model: PreTrained, count: int) -> tuple[str, ...]:
    total = model.config.num_hidden_layers
    if count > total:
        raise ConfigError(f"tuning.layers must be at most the model's {total} layers, got {count}.")
    encoder = f"{model.prefix}encoder."
    return (f"{encoder}LayerNorm.", *(f"{encoder}layer.{index}." for index in range(total - count, total)))
