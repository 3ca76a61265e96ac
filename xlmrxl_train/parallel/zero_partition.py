"""Which part of each parameter a process has under ZeRO, as slices of the whole tensor, and how to write to it.

Stage 3: rank r has elements [r * c, r * c + c) of the flattened parameter, c = ceil(numel / ranks). Stages 1 and 2: one
buffer per group of parameters is cut into equal parts, so a process has all, none or a piece of a parameter. Frozen
parameters have no float32 copy: what forward reads stands for them.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from xlmrxl_train.parallel.strategy import moments_of
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

    @property
    @abstractmethod
    def flat_groups(self) -> list[torch.Tensor]:
        """This process's float32 weights, one flat tensor per group: the parameters of torch's optimizer."""

    @abstractmethod
    def part(self, name: str, moment: str | None = None) -> TensorSlice | None:
        """Return a view of a trainable parameter's float32 weights or moment; None: none of it is here."""

    @abstractmethod
    def frozen(self, name: str) -> torch.Tensor:
        """Return a view of this process's part of a frozen parameter, in the dtype that forward reads."""

    @abstractmethod
    def update_parameters(self) -> None:
        """Make the parameters that forward reads equal to the float32 weights."""

    def make_state(self) -> None:
        """Give the optimizer its state before its first step, as after a step of nothing."""
        for flat in self.flat_groups:
            self._make_state(flat)

    def _make_state(self, flat: torch.Tensor) -> None:
        if self.moment_names:
            self.optimizer.state[flat] = {
                "step": torch.zeros((), device=self._step_device(flat)),
                **{moment: torch.zeros_like(flat) for moment in self.moment_names},
            }

    def set_steps(self, steps: int) -> None:
        """Set the number of updates, which the optimizer corrects its moments by."""
        for flat in self.flat_groups:
            if self.moment_names:
                self.optimizer.state[flat]["step"] = torch.tensor(float(steps), device=self._step_device(flat))

    def _step_device(self, flat: torch.Tensor) -> torch.device:
        fused = any(group.get("fused") for group in self.optimizer.param_groups)
        return flat.device if fused else torch.device("cpu")

    def local_weights(self) -> list[torch.Tensor]:
        """Return the float32 weights that the optimizer moves here."""
        return self.flat_groups

    def weights(self) -> dict[str, torch.Tensor]:
        """Return views of this process's parts of all parameters."""
        parts: dict[str, torch.Tensor] = {}
        for name, parameter in self.parameters.items():
            part = self.part(name) if parameter.requires_grad else self.frozen(name)
            parts[name] = self._nothing(name) if part is None else part
        return parts

    def moments(self) -> dict[str, torch.Tensor]:
        """Return this process's parts of the moments, as `<parameter>.<moment>`."""
        parts: dict[str, torch.Tensor] = {}
        for name, parameter in self.parameters.items():
            if parameter.requires_grad:
                for moment in self.moment_names:
                    part = self.part(name, moment)
                    parts[f"{name}.{moment}"] = self._nothing(name) if part is None else part
        return parts

    def _nothing(self, name: str) -> TensorSlice:
        return TensorSlice(torch.empty(0, device=self.world.device), tuple(self.shapes[name]), 0)

    def store_weight(self, name: str, part: torch.Tensor) -> None:
        """Take over this process's part of a parameter; a frozen one was filled in place."""
        if self.parameters[name].requires_grad:
            self._store(self.part(name), part)

    def store_moment(self, name: str, part: torch.Tensor) -> None:
        """Take over this process's part of `<parameter>.<moment>`."""
        parameter, _, moment = name.rpartition(".")
        self._store(self.part(parameter, moment), part)

    def _store(self, here: TensorSlice | None, part: torch.Tensor) -> None:
        assert isinstance(part, TensorSlice)
        if here is not None and here.flat.data_ptr() != part.flat.data_ptr():
            here.flat.copy_(part.flat)


class DividedParameters(Partition):
    """Stage 3."""

    @property
    def flat_groups(self) -> list[torch.Tensor]:
        """One per sub-group."""
        return list(self.zero.fp32_partitioned_groups_flat)

    def _interval(self, name: str) -> tuple[int, int]:
        numel = self.shapes[name].numel()
        chunk = -(-numel // self.world.size)
        start = min(numel, self.world.rank * chunk)
        return start, min(numel, start + chunk) - start

    def part(self, name: str, moment: str | None = None) -> TensorSlice | None:
        """Return this rank's interval, without the padding at its end."""
        start, count = self._interval(name)
        flat, _ = self.zero._get_fp32_opt_state_partition(
            self.parameters[name], release_swap_buffers=True, optim_state_key=moment
        )
        return TensorSlice(flat.detach()[:count], tuple(self.shapes[name]), start)

    def frozen(self, name: str) -> torch.Tensor:
        """Return this rank's interval."""
        start, count = self._interval(name)
        values = self.parameters[name].ds_tensor.detach().view(-1)[:count]  # type: ignore[attr-defined]
        return TensorSlice(values, tuple(self.shapes[name]), start)

    def update_parameters(self) -> None:
        """Copy, also in float32, where DeepSpeed keeps a second copy."""
        for name, parameter in self.parameters.items():
            if parameter.requires_grad and (part := self.part(name)) is not None:
                ds_tensor = parameter.ds_tensor  # type: ignore[attr-defined]
                ds_tensor.data.view(-1)[: part.flat.numel()].copy_(part.flat)


class SwappedParameters(DividedParameters):
    """Stage 3 with float32 weights and moments on a disk: parts are copies, and are written back."""

    @contextmanager
    def _in_memory(self, group: int) -> Iterator[torch.Tensor]:
        """Bring a group's weights and moments into memory, and back to the disk."""
        self.zero._optimizer_states_and_gradient_swap_in(group)
        yield self.zero.fp32_partitioned_groups_flat[group]
        self.zero._optimizer_states_and_gradient_swap_out(group)

    def _each_group(self) -> Iterator[torch.Tensor]:
        for group in range(len(self.zero.fp32_partitioned_groups_flat)):
            with self._in_memory(group) as flat:
                yield flat

    def make_state(self) -> None:
        """Do so group by group."""
        for flat in self._each_group():
            self._make_state(flat)

    def local_weights(self) -> list[torch.Tensor]:
        """Return what forward reads: the float32 weights are not in memory."""
        return [p.ds_tensor for p in self.parameters.values() if p.requires_grad]  # type: ignore[attr-defined]

    def part(self, name: str, moment: str | None = None) -> TensorSlice | None:
        """Return a copy."""
        start, count = self._interval(name)
        group, place, _ = self.zero.grad_position[self.zero.get_param_id(self.parameters[name])]
        with self._in_memory(group) as flat:
            whole = flat if moment is None else self.optimizer.state[flat][moment]
            values = whole.detach().narrow(0, place, count).clone()
        return TensorSlice(values, tuple(self.shapes[name]), start)

    def _write(self, name: str, part: torch.Tensor, moment: str | None) -> None:
        assert isinstance(part, TensorSlice)
        group, place, _ = self.zero.grad_position[self.zero.get_param_id(self.parameters[name])]
        with self._in_memory(group) as flat:
            whole = flat if moment is None else self.optimizer.state[flat][moment]
            whole.data.narrow(0, place, part.flat.numel()).copy_(part.flat)

    def store_weight(self, name: str, part: torch.Tensor) -> None:
        """Write back; a frozen one was filled in place."""
        if self.parameters[name].requires_grad:
            self._write(name, part, None)

    def store_moment(self, name: str, part: torch.Tensor) -> None:
        """Write back."""
        parameter, _, moment = name.rpartition(".")
        self._write(parameter, part, moment)


class DividedMoments(Partition):
    """Stages 1 and 2."""

    @property
    def flat_groups(self) -> list[torch.Tensor]:
        """One per group of parameters."""
        return [flat for group in self.optimizer.param_groups for flat in group["params"]]

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

    def frozen(self, name: str) -> torch.Tensor:
        """Return the whole parameter."""
        return self.parameters[name].detach()

    def update_parameters(self) -> None:
        """Copy and gather."""
        self.zero.update_lp_params()


def make_partition(engine: Any, model: nn.Module, world: World, shapes: dict[str, torch.Size]) -> Partition:
    """Return the partition of the engine's stage."""
    if engine.zero_optimization_stage() != 3:
        return DividedMoments(engine, model, world, shapes)
    kind = SwappedParameters if engine.optimizer.swap_optimizer else DividedParameters
    return kind(engine, model, world, shapes)
