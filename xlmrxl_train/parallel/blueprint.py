"""A model that has shapes but no memory yet, and what is needed to give it some, in parts or whole."""

from collections.abc import Callable
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
    shapes: dict[str, torch.Size] = field(init=False)  # of whole parameters
    units: list[nn.Module] = field(init=False)
    """The modules that are divided on their own, in the order of forward: untied embeddings and blocks."""

    def __post_init__(self) -> None:
        self.shapes = {name: parameter.shape for name, parameter in self.model.named_parameters()}
        self.units = units_of(self.model, self.block)

    def give_memory(
        self, module: nn.Module, device: torch.device, *, trained: torch.dtype, frozen: torch.dtype
    ) -> None:  # fmt: skip
        """Replace the parameters of `module` that are on the meta device by memory; tied ones stay tied.

        Values are undefined.
        """
        wanted = {id(parameter) for parameter in module.parameters() if parameter.is_meta}
        for parameter, homes in homes_of(self.model):
            if id(parameter) in wanted:
                dtype = trained if parameter.requires_grad else frozen
                memory = torch.empty(parameter.shape, dtype=dtype, device=device)
                put(nn.Parameter(memory, requires_grad=parameter.requires_grad), homes)

    def fill(self) -> None:
        """Fill a model that is whole in this process."""
        for name, parameter in self.model.named_parameters():
            self.source.fill(parameter.detach().view(-1), name)
            progress.move()


Homes = list[tuple[nn.Module, str]]


def homes_of(model: nn.Module) -> list[tuple[nn.Parameter, Homes]]:
    """Return each parameter with the modules and attributes that have it, several where it is tied."""
    homes: dict[int, tuple[nn.Parameter, Homes]] = {}
    for module in model.modules():
        for attribute, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            homes.setdefault(id(parameter), (parameter, []))[1].append((module, attribute))
    return list(homes.values())


def units_of(model: nn.Module, block: type[nn.Module]) -> list[nn.Module]:
    """Return the modules that are divided on their own, in the order of forward: untied embeddings and blocks."""
    tied = {id(parameter) for parameter, homes in homes_of(model) if len(homes) > 1}
    return [
        module
        for module in model.modules()
        if isinstance(module, block) or (isinstance(module, nn.Embedding) and id(module.weight) not in tied)
    ]


def put(parameter: nn.Parameter, homes: Homes) -> None:
    """Make `parameter` the one that all `homes` have."""
    for module, attribute in homes:
        setattr(module, attribute, parameter)
