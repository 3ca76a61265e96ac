"""ZeRO-3 whose float32 weights and moments lie on a disk, one file per sub-group of parameters and kind of tensor.

DeepSpeed leaves sub-groups that are smaller than what it reads at once in memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from xlmrxl_train.parallel.tensor_slice import TensorSlice
from xlmrxl_train.parallel.zero_partition import DividedParameters


class SwappedParameters(DividedParameters):
    """Stage 3 on a disk: a sub-group is read, seen and written as one."""

    @contextmanager
    def _in_memory(self, group: int, *, write: bool) -> Iterator[torch.Tensor]:
        """Bring a sub-group's weights and moments into memory; afterwards write them back, or let go of them."""
        flat: torch.Tensor = self.zero.fp32_partitioned_groups_flat[group]
        if not self.zero._swappable_optimizer_subgroup(group):
            yield flat
            return
        self.zero._optimizer_states_and_gradient_swap_in(group)
        yield flat
        if write:
            self.zero._optimizer_states_and_gradient_swap_out(group)
        else:
            self.zero._release_swap_buffers(group)

    def make_state(self) -> None:
        """Make it sub-group by sub-group."""
        for group in range(len(self.flat_groups)):
            with self._in_memory(group, write=True) as flat:
                self.make_state_of(flat)

    def part(self, name: str, moment: str | None = None) -> TensorSlice | None:
        """Return a part of what is in memory just now."""
        start, count = self.interval(name)
        group, place, _ = self.zero.grad_position[self.zero.get_param_id(self.parameters[name])]
        flat = self.zero.fp32_partitioned_groups_flat[group]
        whole = flat if moment is None else self.optimizer.state[flat][moment]
        return TensorSlice(whole.detach().narrow(0, place, count), tuple(self.shapes[name]), start)

    def visit(self, *, write: bool) -> Iterator[tuple[str, str | None, torch.Tensor]]:
        """Walk over the frozen parameters, then over the others in the order of the disk."""
        for name, parameter in self.parameters.items():
            if not parameter.requires_grad:
                yield name, None, self.frozen(name)
        names = {id(parameter): name for name, parameter in self.parameters.items()}
        for group, parameters in enumerate(self.zero.fp16_groups):
            with self._in_memory(group, write=write):
                for name in (names[id(parameter)] for parameter in parameters):
                    for moment in (None, *self.moment_names):
                        part = self.part(name, moment)
                        assert part is not None
                        yield name, moment, part

    def kept(self, name: str, view: torch.Tensor) -> torch.Tensor:
        """Return a copy of what lies on the disk, and of what may."""
        assert isinstance(view, TensorSlice)
        return view.staged() if self.parameters[name].requires_grad else view
