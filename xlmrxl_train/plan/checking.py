"""Whether a model fits into memory, known before any is taken."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import nn

from xlmrxl_train.config import Config
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.launcher import launched
from xlmrxl_train.model import XLMRobertaXLLayer
from xlmrxl_train.parallel import World
from xlmrxl_train.parallel.memory import memory_of
from xlmrxl_train.plan.planning import Planner, budget_of
from xlmrxl_train.plan.states import Shapes, States, states_of
from xlmrxl_train.spelling import gigabytes

ROUGHLY = 100  # bytes that a layer keeps per token and unit of width, more than any precision and dropout take


def check_memory(
    world: World, config: Config, model: nn.Module, *, training: bool,
    kept: Mapping[str, torch.dtype] = MappingProxyType({}), planner: Callable[[], Planner] | None = None,
) -> str | None:  # fmt: skip
    """Refuse a model that cannot be loaded or trained; return a warning where activations cannot be expected to fit.

    Args:
        world: Its device is where the model will be; ranks of one machine share the memory beside GPUs.
        config: Of the run.
        model: As it will be, on any device; "meta" takes no memory.
        training: Whether gradients and moments will be needed, and not the weights alone.
        kept: What frozen parameters are held in, as `Blueprint.kept`.
        planner: Makes what knows more, when the memory is tight; None: nobody does.

    Raises:
        ConfigError: Weights, or with `training` gradients and moments too, are larger than the memory.
    """
    on_cpu = world.device.type == "cpu"
    copies = launched().local_size if on_cpu else 1
    memory, place = memory_of(world.device), "machine" if on_cpu else "GPU"
    ranks = f" in each of {copies} processes" if copies > 1 else ""
    shapes = Shapes.of(model, XLMRobertaXLLayer, kept)
    states = states_of(config, shapes, world.size)
    weights, lasting = _held(states, on_cpu)
    if weights * copies > memory:
        raise ConfigError(
            f"model must fit into memory: {shapes.all:,} parameters need {gigabytes(weights)} for "
            f"weights{ranks}, this {place} has {gigabytes(memory)}. Choose a smaller model or a larger {place}."
        )
    if not training:
        return None
    if lasting * copies > memory:
        raise ConfigError(
            f"training must fit into memory: {shapes.trained:,} trained parameters need {gigabytes(lasting)} for "
            f"weights, gradients and moments{ranks}, this {place} has {gigabytes(memory)}. "
            f"{planner().advice() if planner else 'xlmrxl plan says what would fit.'}"
        )
    settings = config.train
    if planner is None or settings.recompute == "auto" or settings.tokens_per_micro_batch == "auto":
        return None  # decided when lengths are known
    layers = [module for module in model.modules() if isinstance(module, XLMRobertaXLLayer)]
    width = max((parameter.shape[-1] for layer in layers for parameter in layer.parameters()), default=0)
    if (lasting + ROUGHLY * budget_of(config) * len(layers) * width) * copies < memory:
        return None
    made = planner()
    return None if made.fits() else f"warning: {made.fault()}"


def _held(states: States, on_cpu: bool) -> tuple[float, float]:
    """Return what weights, and all that lasts, take where the model is."""
    host = states.host if on_cpu else 0.0
    return states.weights, states.lasting + host
