"""How fast a run is, beside how fast its devices multiply matrices; and how much memory and energy it takes."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil
import torch

from xlmrxl_train.config import Config
from xlmrxl_train.parallel import Strategy, World
from xlmrxl_train.parallel.matrix_peak import matrix_peak
from xlmrxl_train.training.energy import energy_meter

MEASURED = (
    "tokens_per_second",
    "matrix_share",
    "input_wait",
    "memory_gb",
    "gpu_memory_gb",
    "energy_wh",
)  # what no rerun repeats
LANGUAGE_MODELS = ("masked_language_modelling", "causal_language_modelling")


@dataclass(kw_only=True)
class Speed:
    """Counts since the last line of the log, over all ranks; seconds as rank 0 sees them."""

    device: torch.device
    flops_per_token: float | None = None  # None: not known
    flops_per_target: float = 0.0
    peak: float = 1.0  # FLOP/s of a matrix product on all devices together
    tokens: int = 0
    targets: float = 0.0
    seconds: float = 0.0  # of steps and of waiting for their input
    waited: float = 0.0  # for input
    meter: Callable[[], float] | None = None  # joules of this rank's GPU since it was last asked
    joules: float = 0.0  # of this rank's GPU in steps

    @classmethod
    def of(cls, config: Config, strategy: Strategy) -> "Speed":
        """Measure the devices, all ranks at once, in some hundredths of a second.

        FLOPs are 2 per weight and token forward, 2 backward where a layer is trained, and 2 per trained weight: what
        the arithmetic needs, not what recomputation adds. Attention's own products are left out (1 % at 128 tokens, 3 %
        at 512 for XL), and so are heads, but for that of a language model. An encoder with a decoder has no number,
        since source and target tokens are counted together.
        """
        world, shapes = strategy.world, strategy.shapes
        matrices = {name for name, shape in shapes.items() if len(shape) == 2 and ".layer." in name}
        weights = sum(shapes[name].numel() for name in matrices)
        trained = sum(shapes[name].numel() for name in matrices & set(strategy.trainable))
        vocabulary = 0
        if config.task.kind in LANGUAGE_MODELS:
            vocabulary = sum(shape.numel() for name, shape in shapes.items() if name.endswith("word_embeddings.weight"))
        dtype = torch.bfloat16 if config.train.precision == "bf16" else torch.float32
        per_token = 2.0 * (weights * (1 + (trained > 0)) + trained)
        peak = torch.tensor(matrix_peak(dtype, world.device), dtype=torch.float64, device=world.device)
        return cls(
            device=world.device,
            flops_per_token=None if config.task.kind == "translation" else per_token,
            flops_per_target=6.0 * vocabulary,
            peak=float(world.sum(peak)),
            meter=energy_meter(world.device),
        )

    def begin(self) -> float:
        """Say that steps are next, after something else; return the time."""
        if self.meter:
            self.meter()
        return time.monotonic()

    def count(self, *, tokens: int, targets: float, seconds: float, waited: float) -> None:
        """Add a step."""
        self.tokens += tokens
        self.targets += targets
        self.seconds += seconds
        self.waited += waited
        self.joules += self.meter() if self.meter else math.nan

    def values(self) -> dict[str, float]:
        """Return the numbers of a line, and begin anew. Nothing here waits for the device."""
        seconds = self.seconds or float("inf")
        found = {"tokens_per_second": round(self.tokens / seconds, 1)}
        if self.flops_per_token is not None:
            flops = self.flops_per_token * self.tokens + self.flops_per_target * self.targets
            found["matrix_share"] = round(flops / seconds / self.peak, 4)
        found["input_wait"] = round(self.waited / seconds, 4)
        found["memory_gb"] = round(psutil.Process().memory_info().rss / 1e9, 3)
        if self.device.type == "cuda":
            found["gpu_memory_gb"] = round(torch.cuda.max_memory_allocated(self.device) / 1e9, 3)
        self.tokens, self.targets, self.seconds, self.waited = 0, 0.0, 0.0, 0.0
        return found

    def energy(self, world: World) -> dict[str, float]:
        """Return what the GPUs of all ranks took in steps since this was last called; nothing if one cannot tell."""
        if self.device.type != "cuda":
            return {}
        joules = float(world.sum(torch.tensor(self.joules, dtype=torch.float64, device=self.device)))
        self.joules = 0.0
        return {"energy_wh": round(joules / 3600, 4)} if math.isfinite(joules) else {}
