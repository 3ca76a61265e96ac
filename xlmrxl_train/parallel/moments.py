"""An optimizer's moments of one parameter, as tensors that a checkpoint holds and that are filled in place."""

from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from xlmrxl_train.parallel.strategy import moments_of


def moments_in(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, torch.Tensor]:
    """Return a parameter's moments by name, made as before its first step where it has none yet.

    A moment in a byte per element is two tensors, `<name>` and `<name>.scale`.
    """
    names, state = moments_of(optimizer), optimizer.state[parameter]
    if names and not state:
        fused = optimizer.defaults.get("fused")
        state["step"] = torch.zeros((), device=parameter.device if fused else "cpu")
        for name in names:
            state[name] = _zeros(optimizer, parameter.detach(), signed=name == "exp_avg")
    return {part: tensor for name in names for part, tensor in _parts(name, state[name]).items()}


def local(tensor: torch.Tensor) -> torch.Tensor:
    """Return this rank's rows."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _zeros(optimizer: torch.optim.Optimizer, like: torch.Tensor, *, signed: bool) -> torch.Tensor:
    make = getattr(optimizer, "_new_buffer", None)  # torchao's
    zeros: torch.Tensor = torch.zeros_like(like) if make is None else make(like, signed)
    return zeros


def _parts(name: str, moment: torch.Tensor) -> dict[str, torch.Tensor]:
    rows: Any = local(moment)
    if not hasattr(rows, "codes"):
        return {name: moment}
    # One scale for each block of a row: divided among ranks by rows, as the parameter is.
    parts = {name: rows.codes, f"{name}.scale": rows.scale.view(len(rows), -1)}
    if isinstance(moment, DTensor):
        mesh, places = moment.device_mesh, moment.placements
        parts = {
            part: DTensor.from_local(tensor, mesh, places, shape=torch.Size(shape), stride=(shape[1], 1))
            for part, tensor in parts.items()
            for shape in [(len(moment), tensor.shape[1])]
        }
    return parts
