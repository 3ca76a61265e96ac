"""How fast a run is, beside how fast its devices multiply matrices; and how much memory it takes."""

from dataclasses import dataclass

import psutil
import torch

from xlmrxl_train.config import Config
from xlmrxl_train.parallel import Strategy
from xlmrxl_train.parallel.matrix_peak import matrix_peak

MEASURED = ("tokens_per_second", "matrix_share", "input_wait", "memory_gb", "gpu_memory_gb")  # what no rerun repeats
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
        )

    def count(self, *, tokens: int, targets: float, seconds: float, waited: float) -> None:
        """Add a step."""
        self.tokens += tokens
        self.targets += targets
        self.seconds += seconds
        self.waited += waited

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
