"""Writes a checkpoint while training goes on: one at a time, with collectives of its own."""

import threading
from collections.abc import Callable

import psutil
import torch

from xlmrxl_train.parallel import World
from xlmrxl_train.parallel.tensor_slice import TensorSlice

SHARE_OF_FREE_MEMORY = 0.5  # that copies of all ranks of a machine may take together


class Background:
    """A thread that does one thing at a time and keeps its exception for whoever waits."""

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.fault: BaseException | None = None
        self._world: World | None = None

    def world(self, beside: World) -> World:
        """Return the ranks as the thread may talk to them; made once, by all ranks at the same time."""
        if self._world is None:
            self._world = beside.beside()
        return self._world

    def start(self, action: Callable[[], object]) -> None:
        """Run `action`; nothing else may be running."""
        assert self.thread is None

        def run() -> None:
            try:
                action()
            except BaseException as error:  # raised where somebody waits
                self.fault = error

        # A daemon, so that a process that fails ends; what it was writing is then incomplete and invisible.
        self.thread = threading.Thread(target=run, name="checkpoint", daemon=True)
        self.thread.start()

    def wait(self) -> None:
        """Wait for the end of what runs, and raise its exception."""
        if self.thread is not None:
            self.thread.join()
            self.thread = None
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault


def fits_in_memory(tensors: dict[str, torch.Tensor], world: World) -> bool:
    """Return whether every rank can copy its tensors to host memory, taking its neighbours to need as much."""
    own = [tensor.flat if isinstance(tensor, TensorSlice) else tensor for tensor in tensors.values()]
    needed = sum(tensor.nbytes for tensor in own)
    neighbours = max(1, world.size if world.device.type == "cpu" else torch.cuda.device_count())
    return not world.any(needed * neighbours > SHARE_OF_FREE_MEMORY * psutil.virtual_memory().available)
