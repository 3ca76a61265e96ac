"""torch's `fully_shard`: every process holds some rows of every parameter, gradient and moment.

A layer is gathered before it runs and let go after it. Rows are gathered in bf16 under precision=bf16; gradients are
reduced after each micro-batch, so that none are held whole, and added up in float32; the rows that the optimizer moves
are float32. Frozen rows are held in bf16 too, but for those of the embedding, which keep the dtype of their file.
"""

from contextlib import AbstractContextManager, nullcontext
from math import prod
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor

from xlmrxl_train.config import FSDP2Config
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.parallel.blueprint import Blueprint, homes_of, put
from xlmrxl_train.parallel.single import SingleStrategy
from xlmrxl_train.parallel.strategy import forward_dtype, norm_of_gradients
from xlmrxl_train.parallel.tensor_slice import TensorSlice
from xlmrxl_train.parallel.world import World
from xlmrxl_train.progress import progress


class FSDP2Strategy(SingleStrategy):
    """`SingleStrategy` over row shards."""

    whole = False

    def __init__(
        self, world: World, blueprint: Blueprint, precision: str, max_grad_norm: float, config: FSDP2Config
    ) -> None:
        """Divide the model while it is on the meta device, then give each process memory for its rows."""
        self.config = config
        self.mesh = make_mesh(world, config.shard_size)
        super().__init__(world, blueprint, precision, max_grad_norm)

    def build(self, blueprint: Blueprint) -> None:
        """Divide untied embeddings, layers, and what remains; then read this process's rows."""
        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if self.precision == "bf16" else None,
            reduce_dtype=torch.float32,
            cast_forward_inputs=False,  # the residual stream stays float32
        )
        offload = CPUOffloadPolicy(pin_memory=self.config.pin_memory) if self.config.offload else OffloadPolicy()
        for unit in [*blueprint.units, self.model]:
            fully_shard(
                unit,
                mesh=self.mesh,
                mp_policy=policy,
                offload_policy=offload,
                reshard_after_forward=self.config.reshard_after_forward and unit is not self.model,
            )
        device = torch.device("cpu") if self.config.offload else self.world.device
        dtypes = blueprint.dtypes(forward_dtype(self.precision))
        for name, (parameter, homes) in homes_of(self.model).items():
            rows = torch.empty_like(parameter, device=device, dtype=dtypes[name])
            put(nn.Parameter(rows, requires_grad=parameter.requires_grad), homes)
        for name, parameter in self.model.named_parameters():
            local, start = rows_of(parameter, self.mesh)
            blueprint.source.fill(local.view(-1), name, start)
            progress.move()
        layers = [unit for unit in blueprint.units if isinstance(unit, blueprint.block)]  # all run in every step
        prefetch(layers, self.config.prefetch_layers)

    def products(self) -> AbstractContextManager[Any]:
        """Return nothing: rows are gathered in the dtype of products."""
        return nullcontext()

    def predict(self, inputs: dict[str, Any]) -> Any:
        """Run the model without dropout and gradients."""
        output = super().predict(inputs)
        assert isinstance(self.model, FSDPModule)
        self.model.reshard()  # without a backward it would keep what does not lie in a layer whole
        return output

    def total_norm(self, trainable: list[nn.Parameter]) -> torch.Tensor:
        """Return the norm over all ranks' rows."""
        norm = norm_of_gradients(trainable)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return this process's rows; what forward has left gathered, in its dtype, is let go of first."""
        self._reshard()
        return {name: slice_of(tensor, self.mesh) for name, tensor in super().state_dict().items()}

    def load_state_dict(self, state: dict[str, torch.Tensor], steps: int) -> None:
        """Take over rows."""
        self._reshard()
        whole = super().state_dict()
        for name, tensor in whole.items():
            part = state[name]
            assert isinstance(part, TensorSlice)
            rows_of(tensor, self.mesh)[0].view(-1).copy_(part.flat)
        super().load_state_dict(whole, steps)

    def _reshard(self) -> None:
        for module in self.model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def local_weights(self) -> list[torch.Tensor]:
        """Return this process's rows."""
        return [rows_of(parameter, self.mesh)[0] for parameter in self.parameters.values()]


def make_mesh(world: World, shard_size: int | None) -> DeviceMesh:
    """Return all ranks in a row, or rows of `shard_size` ranks that each hold a whole model.

    Raises:
        ConfigError: The ranks are no multiple of `shard_size`.
    """
    if shard_size in (None, world.size):
        return init_device_mesh(world.device.type, (world.size,), mesh_dim_names=("shard",))
    assert shard_size is not None
    if world.size % shard_size:
        raise ConfigError(
            f"strategy.shard_size must divide the number of ranks, {world.size}, got {shard_size}. "
            "Use the number of GPUs of a machine."
        )
    shape = (world.size // shard_size, shard_size)
    return init_device_mesh(world.device.type, shape, mesh_dim_names=("copy", "shard"))


def rows_of(parameter: torch.Tensor, mesh: DeviceMesh) -> tuple[torch.Tensor, int]:
    """Return this process's rows of a parameter, and the number of their first element in the whole."""
    assert isinstance(parameter, DTensor)
    local, rank = parameter.to_local().detach(), mesh["shard"].get_local_rank()
    chunk = -(-parameter.shape[0] // mesh["shard"].size())  # rows per rank, fewer on the last ones
    return local, min(rank * chunk, parameter.shape[0]) * prod(parameter.shape[1:])


def slice_of(tensor: torch.Tensor, mesh: DeviceMesh) -> TensorSlice:
    """Return this process's rows as a checkpoint holds them, not copied."""
    rows, start = rows_of(tensor, mesh)
    return TensorSlice(rows.view(-1), tuple(tensor.shape), start)


def prefetch(layers: list[nn.Module], ahead: int) -> None:
    """Gather the next `ahead` layers while one runs, in both directions."""
    for index, unit in enumerate(layers):
        assert isinstance(unit, FSDPModule)
        if ahead > 1:  # one is what fully_shard does by itself
            unit.set_modules_to_forward_prefetch(layers[index + 1 : index + 1 + ahead])  # type: ignore[arg-type]
            unit.set_modules_to_backward_prefetch(layers[max(0, index - ahead) : index][::-1])  # type: ignore[arg-type]
