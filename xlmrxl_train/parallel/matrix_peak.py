"""How fast a device multiplies matrices."""

import time

import torch


def matrix_peak(dtype: torch.dtype, device: torch.device) -> float:
    """Return the FLOP/s of a large matrix product: the best of a few."""
    size = 8192 if device.type == "cuda" else 512
    generator = torch.Generator(device).manual_seed(0)  # not the run's; a GPU multiplies ones faster than numbers
    left, right = (torch.randn(size, size, generator=generator, device=device).to(dtype) for _ in range(2))
    float((left @ right)[0, 0])  # a GPU's library is opened by the first
    best, end = float("inf"), time.monotonic() + 0.03
    while best == float("inf") or time.monotonic() < end:
        began = time.perf_counter()
        float((left @ right)[0, 0])  # waits for a GPU
        best = min(best, time.perf_counter() - began)
    return 2.0 * size**3 / best
