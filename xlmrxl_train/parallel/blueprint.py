"""A model that has shapes but no memory yet, and what is needed to give it some, in parts or whole."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import nn

from xlmrxl_train.progress import progress

MakeOptimizer = Callable[[nn.Module], torch.optim.Optimizer]


class Source(Protocol):
    """Where the values of parameters come from."""

    def fill(self, target: torch.Tensor, name: str, start: int = 0) -> None:
        """Fill `target`, one-dimensional and contiguous, with the elements of parameter `name` from `start` on."""


@dataclass(kw_only=True)
class Blueprint:
    """What a strategy builds its model from."""

    model: nn.Module  # on the meta device
    block: type[nn.Module]  # its repeated layer
    source: Source
    make_optimizer: MakeOptimizer  # groups are by names, since engines change shapes
    kept: Mapping[str, torch.dtype] = field(default_factory=dict)
    """Frozen parameters that are not to be rounded to the dtype of forward, and what they are held in."""
    shapes: dict[str, torch.Size] = field(init=False)  # of whole parameters
    units: list[nn.Module] = field(init=False)
    """The modules that are divided on their own, in the order of forward: untied embeddings and blocks."""

    def __post_init__(self) -> None:
        self.shapes = {name: parameter.shape for name, parameter in self.model.named_parameters()}
        self.units = units_of(self.model, self.block)

    def dtypes(self, forward: torch.dtype) -> dict[str, torch.dtype]:
        """Return what each parameter is held in: float32 where it is trained, `forward` where frozen and not `kept`."""
        return {
            name: torch.float32 if parameter.requires_grad else self.kept.get(name, forward)
            for name, parameter in self.model.named_parameters()
        }

    def give_memory(self, module: nn.Module, device: torch.device, dtypes: Mapping[str, torch.dtype]) -> None:
        """Replace the parameters of `module` that are on the meta device by memory; tied ones stay tied.

        Values are undefined.
        """
        wanted = {id(parameter) for parameter in module.parameters() if parameter.is_meta}
        for name, (parameter, homes) in homes_of(self.model).items():
            if id(parameter) in wanted:
                memory = torch.empty(parameter.shape, dtype=dtypes[name], device=device)
                put(nn.Parameter(memory, requires_grad=parameter.requires_grad), homes)

    def fill(self) -> None:
        """Fill a model that is whole in this process."""
        for name, parameter in self.model.named_parameters():
            self.source.fill(parameter.detach().view(-1), name)
            progress.move()


Homes = list[tuple[nn.Module, str]]


def homes_of(model: nn.Module) -> dict[str, tuple[nn.Parameter, Homes]]:
    """Return each parameter by its name with the modules and attributes that have it, several where it is tied."""
    names: dict[int, str] = {}
    found: dict[str, tuple[nn.Parameter, Homes]] = {}
    for prefix, module in model.named_modules():
        for attribute, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            name = names.setdefault(id(parameter), f"{prefix}.{attribute}".removeprefix("."))
            found.setdefault(name, (parameter, []))[1].append((module, attribute))
    return found


def units_of(model: nn.Module, block: type[nn.Module]) -> list[nn.Module]:
    """Return the modules that are divided on their own, in the order of forward: untied embeddings and blocks."""
    tied = {id(parameter) for parameter, homes in homes_of(model).values() if len(homes) > 1}
    return [
        module
        for module in model.modules()
        if isinstance(module, block) or (isinstance(module, nn.Embedding) and id(module.weight) not in tied)
    ]


def put(parameter: nn.Parameter, homes: Homes) -> None:
    """Make `parameter` the one that all `homes` have."""
    for module, attribute in homes:
        setattr(module, attribute, parameter)
