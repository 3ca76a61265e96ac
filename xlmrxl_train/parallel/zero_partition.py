"""Which part of each parameter a process has under ZeRO, as slices of the whole tensor, and how to write to it.

Stage 3: rank r has elements [r * c, r * c + c) of the flattened parameter, c = ceil(numel / ranks). Stages 1 and 2: one
buffer per group of parameters is cut into equal parts, so a process has all, none or a piece of a parameter. Frozen
parameters have no float32 copy: what forward reads stands for them. Those that are not to be rounded have a copy in
host memory in a dtype of their own, which forward does not read.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from xlmrxl_train.parallel.strategy import moments_of, own_updates
from xlmrxl_train.parallel.tensor_slice import TensorSlice
from xlmrxl_train.parallel.world import World


class Partition(ABC):
    """One process's parts of float32 weights and moments."""

    def __init__(self, engine: Any, model: nn.Module, world: World, shapes: dict[str, torch.Size]) -> None:
        self.zero = engine.optimizer  # DeepSpeed's, around torch's
        self.optimizer: torch.optim.Optimizer = self.zero.optimizer
        self.world = world
        self.shapes = shapes
        self.parameters = dict(model.named_parameters())
        self.moment_names = moments_of(self.optimizer)
        self.originals: dict[str, torch.Tensor] = {}

    def keep(self, dtypes: Mapping[str, torch.dtype]) -> None:
        """Make room for this process's parts of frozen parameters that forward reads rounded."""
        for name, dtype in dtypes.items():
            part = self.forward_part(name)
            if part.dtype == dtype:
                continue
            self.originals[name] = (
                TensorSlice(torch.empty_like(part.flat, dtype=dtype, device="cpu"), tuple(part.shape), part.start)
                if isinstance(part, TensorSlice)
                else torch.empty_like(part, dtype=dtype, device="cpu")
            )

    @property
    @abstractmethod
    def flat_groups(self) -> list[torch.Tensor]:
        """This process's float32 weights, one flat tensor per group: the parameters of torch's optimizer."""

    @abstractmethod
    def group_of(self, index: int) -> dict[str, Any]:
        """Return the optimizer's group that the flat tensor of that number belongs to."""

    @abstractmethod
    def part(self, name: str, moment: str | None = None) -> TensorSlice | None:
        """Return a view of a trainable parameter's float32 weights or moment; None: none of it is here."""

    @abstractmethod
    def forward_part(self, name: str) -> torch.Tensor:
        """Return a view of this process's part of a frozen parameter, in the dtype that forward reads."""

    def frozen(self, name: str) -> torch.Tensor:
        """Return a view of this process's part of a frozen parameter, not rounded where that is kept."""
        return self.originals.get(name, self.forward_part(name))

    def update_parameters(self) -> None:
        """Make the parameters that forward reads equal to the float32 weights, or to frozen ones in their own dtype."""
        self.update_trained()
        for name, original in self.originals.items():
            part = self.forward_part(name)
            if isinstance(part, TensorSlice) and isinstance(original, TensorSlice):
                part, original = part.flat, original.flat
            part.copy_(original)

    @abstractmethod
    def update_trained(self) -> None:
        """Make the trained parameters that forward reads equal to the float32 weights."""

    def make_state(self) -> None:
        """Give the optimizer its state before its first step, as after a step of nothing."""
        for flat in self.flat_groups:
            self.make_state_of(flat)

    def make_state_of(self, flat: torch.Tensor) -> None:
        """Do so for one of the flat tensors, which is in memory."""
        if self.moment_names:
            self.optimizer.state[flat] = {
                "step": torch.zeros((), device=self._step_device(flat)),
                **{moment: torch.zeros_like(flat) for moment in self.moment_names},
            }

    def set_updates(self, updates: int) -> None:
        """Set the number of updates, which the optimizer corrects its moments by."""
        for index, flat in enumerate(self.flat_groups):
            if self.moment_names:
                own = own_updates(self.group_of(index), updates)
                self.optimizer.state[flat]["step"] = torch.tensor(own, device=self._step_device(flat))

    def _step_device(self, flat: torch.Tensor) -> torch.device:
        fused = any(group.get("fused") for group in self.optimizer.param_groups)
        return flat.device if fused else torch.device("cpu")

    def visit(self, *, write: bool) -> Iterator[tuple[str, str | None, torch.Tensor]]:
        """Walk over this process's parts: name of the parameter, name of the moment (None: the weights), a view of it.

        A view is good until the next one is asked for.

        Args:
            write: Whether what is written to a view is to stay.
        """
        for name, parameter in self.parameters.items():
            if not parameter.requires_grad:
                yield name, None, self.frozen(name)
                continue
            for moment in (None, *self.moment_names):
                part = self.part(name, moment)
                yield name, moment, self._nothing(name) if part is None else part

    def kept(self, name: str, view: torch.Tensor) -> torch.Tensor:
        """Return what stays good of a parameter's view from `visit`."""
        return view

    def _nothing(self, name: str) -> TensorSlice:
        return TensorSlice(torch.empty(0, device=self.world.device), tuple(self.shapes[name]), 0)


class DividedParameters(Partition):
    """Stage 3."""

    @property
    def flat_groups(self) -> list[torch.Tensor]:
        """One per sub-group."""
        return list(self.zero.fp32_partitioned_groups_flat)

    def group_of(self, index: int) -> dict[str, Any]:
        """Return it by DeepSpeed's table."""
        number: int = self.zero.sub_group_to_group_id[index]
        return self.optimizer.param_groups[number]

    def interval(self, name: str) -> tuple[int, int]:
        """Return the first element of this rank's part, and how many it has, without the padding at its end."""
        numel = self.shapes[name].numel()
        chunk = -(-numel // self.world.size)
        start = min(numel, self.world.rank * chunk)
        return start, min(numel, start + chunk) - start

    def part(self, name: str, moment: str | None = None) -> TensorSlice | None:
        """Return this rank's interval, without the padding at its end."""
        start, count = self.interval(name)
        flat, _ = self.zero._get_fp32_opt_state_partition(
            self.parameters[name], release_swap_buffers=True, optim_state_key=moment
        )
        return TensorSlice(flat.detach()[:count], tuple(self.shapes[name]), start)

    def forward_part(self, name: str) -> torch.Tensor:
        """Return this rank's interval."""
        start, count = self.interval(name)
        values = self.parameters[name].ds_tensor.detach().view(-1)[:count]  # type: ignore[attr-defined]
        return TensorSlice(values, tuple(self.shapes[name]), start)

    def update_trained(self) -> None:
        """Copy, also in float32, where DeepSpeed keeps a second copy; let go of ZeRO++'s, which it makes anew."""
        for name, moment, part in self.visit(write=False):
            if moment is None and self.parameters[name].requires_grad:
                assert isinstance(part, TensorSlice)
                ds_tensor = self.parameters[name].ds_tensor  # type: ignore[attr-defined]
                ds_tensor.data.view(-1)[: part.flat.numel()].copy_(part.flat)
        for parameter in self.parameters.values():  # DeepSpeed does so after a step, where frozen ones keep theirs
            parameter.ds_secondary_tensor = None  # type: ignore[attr-defined]


class DividedMoments(Partition):
    """Stages 1 and 2."""

    @property
    def flat_groups(self) -> list[torch.Tensor]:
        """One per group of parameters."""
        return [flat for group in self.optimizer.param_groups for flat in group["params"]]

    def group_of(self, index: int) -> dict[str, Any]:
        """Return it: each has one."""
        return self.optimizer.param_groups[index]

    def make_state(self) -> None:
        """Let DeepSpeed find each parameter's part of the moments too."""
        super().make_state()
        self.zero._lazy_init_hp_params_optimizer_state()

    def part(self, name: str, moment: str | None = None) -> TensorSlice | None:
        """Return what of the parameter lies in this rank's piece of its group's buffer."""
        mapping = self.parameters[name]._hp_mapping  # type: ignore[attr-defined]
        if mapping is None:
            return None
        fragment = mapping.get_hp_fragment(moment)
        return TensorSlice(fragment.detach().view(-1), tuple(self.shapes[name]), mapping.lp_fragment_address.start)

    def forward_part(self, name: str) -> torch.Tensor:
        """Return the whole parameter."""
        return self.parameters[name].detach()

    def update_trained(self) -> None:
        """Copy and gather."""
        self.zero.update_lp_params()
