"""Finds out whether an optimizer step changed any weight, whatever the engine says that it did."""

from collections.abc import Iterable
from typing import Any

import torch

SAMPLES = 256  # elements of each tensor


class Probe:
    """A sample of this process's weights, evenly spread over each tensor, from before a step."""

    def __init__(self, weights: Iterable[torch.Tensor]) -> None:
        """Take the sample of flat tensors; a whole copy would double the memory."""
        self.samples = [_view(weight) for weight in weights if weight.numel()]
        self.before = [sample.clone() for sample in self.samples]

    def unchanged(self) -> bool:
        """Return whether no element of the sample differs now; a process without weights says so too."""
        pairs = zip(self.before, self.samples, strict=True)
        return all(torch.equal(before, now) for before, now in pairs)


class OptimizerWatch:
    """Looks at what an optimizer moves whenever it is called: an engine may call it once, for each part, or never."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        """Be called around every step of the optimizer itself, when its weights are in memory."""
        self.unchanged = True
        optimizer.register_step_pre_hook(self._before)
        optimizer.register_step_post_hook(self._after)

    def reset(self) -> None:
        """Forget what was seen."""
        self.unchanged = True

    def _before(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self._probe = Probe(weight for group in optimizer.param_groups for weight in group["params"])

    def _after(self, *_: Any) -> None:
        self.unchanged &= self._probe.unchanged()


def _view(weight: torch.Tensor) -> torch.Tensor:
    flat = weight.detach().view(-1)
    return flat[:: max(1, flat.numel() // SAMPLES)]
