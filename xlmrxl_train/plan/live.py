"""What tensors a computation makes: the largest one, and how much is alive at once."""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveTensors(TorchDispatchMode):
    """Counts the storages that operations return, forward and backward, while they are alive; fake tensors' too.

    Attributes:
        largest: Elements of the largest tensor.
        alive: Bytes of all new storages just now.
        peak: The most that `alive` has been.
    """

    def __init__(self, known: Iterable[torch.Tensor] = ()) -> None:
        """Begin with nothing.

        Args:
            known: Tensors that are not counted, nor are views of them.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.largest = self.alive = self.peak = 0
        self._known = [tensor.untyped_storage() for tensor in known]  # held, so that their places are not used again
        self._sizes = {storage._cdata: 0 for storage in self._known}

    def __torch_dispatch__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and not (tensor.is_meta and type(tensor) is torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
                self._watch(tensor.untyped_storage())
        return result

    def begin_anew(self) -> int:
        """Return the peak, and let it begin again with what is alive now."""
        peak, self.peak = self.peak, self.alive
        return peak

    def _watch(self, storage: torch.UntypedStorage) -> None:
        place = storage._cdata
        if place not in self._sizes:
            self._sizes[place] = storage.nbytes()
            self.alive += storage.nbytes()
            self.peak = max(self.peak, self.alive)
            weakref.finalize(storage, self._forget, place)

    def _forget(self, place: int) -> None:
        self.alive -= self._sizes.pop(place)
