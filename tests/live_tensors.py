"""What tensors a computation makes: the largest one, and how much is alive at once."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveTensors(TorchDispatchMode):
    """Counts the storages that operations return, forward and backward, while they are alive.

    Attributes:
        largest: Elements of the largest tensor.
        peak: Bytes of all new storages at the worst moment.
    """

    def __init__(self) -> None:
        super().__init__()
        self.largest = self.peak = 0
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.device.type != "meta":
                self.largest = max(self.largest, tensor.numel())
                self._watch(tensor.untyped_storage())
        return result

    def _watch(self, storage: torch.UntypedStorage) -> None:
        place = storage.data_ptr()
        if place and place not in self._alive:
            self._alive[place] = storage.nbytes()
            weakref.finalize(storage, self._alive.pop, place, None)
            self.peak = max(self.peak, sum(self._alive.values()))
