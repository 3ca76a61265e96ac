"""The learning rate as a pure function of the step, so that resuming needs no state."""

import math

from xlmrxl_train.config import ScheduleConfig


def warmup_steps(config: ScheduleConfig, total_steps: int) -> int:
    """Return the number of steps over which the rate rises: a share of all steps below 1, else a count."""
    return round(config.warmup * total_steps) if config.warmup < 1 else int(config.warmup)


def learning_rate(config: ScheduleConfig, peak: float, step: int, total_steps: int) -> float:
    """Return the rate of optimizer step `step`, counted from 0.

    It rises linearly, and is at its peak in the first step after warm-up; then it stays, or falls linearly or along
    half a cosine to `config.final` times the peak, which the step after the last would have.
    """
    warmup = warmup_steps(config, total_steps)
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    if config.name == "constant":
        return peak
    progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    share = 1 - progress if config.name == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return peak * (config.final + (1 - config.final) * share)
