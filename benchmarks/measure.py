"""Clocks, the machine's matrix peak, its description, and tables."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "transformers", "accelerate", "numpy")


def clock(kind: str, device: torch.device) -> Callable[[], float]:
    """Return a function that reads seconds.

    "wall" waits for the device first. "cpu" counts this process' processor time, which other processes on a busy
    machine disturb less; use it with one thread, since waiting threads spin.
    """
    if kind == "cpu":
        return time.process_time

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


def timed(action: Callable[[], Any], now: Callable[[], float]) -> float:
    """Return the seconds that `action` takes."""
    began = now()
    action()
    return now() - began


class MatrixPeak:
    """The rate of a large matrix product, sampled between the batches that it is compared with."""

    def __init__(self, device: torch.device, now: Callable[[], float], dtype: torch.dtype = torch.bfloat16) -> None:
        self.size = 8192 if device.type == "cuda" else 1536
        self.now = now
        self.left = torch.randn(self.size, self.size, device=device).to(dtype)
        self.right = torch.randn(self.size, self.size, device=device).to(dtype)
        self.samples: list[float] = []
        self.left @ self.right

    def sample(self) -> None:
        """Measure once more."""
        self.samples.append(2.0 * self.size**3 / timed(lambda: self.left @ self.right, self.now))

    @property
    def median(self) -> float:
        """FLOP/s."""
        return statistics.median(self.samples)


def spread(values: Sequence[float]) -> str:
    """Return the middle half of `values` around their median, as "-4 % +5 %"."""
    if len(values) < 4:
        return "-"
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{low / middle - 1:+.0%} {high / middle - 1:+.0%}"


def peak_memory_gb(device: torch.device) -> float:
    """Return the most memory that this process has held: of the GPU, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    # Not ru_maxrss: a child begins with its parent's.
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith("VmHWM"))


def machine(device: torch.device) -> dict[str, Any]:
    """Return what results depend on beside the code."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "python": platform.python_version(),
        "load": [round(value, 1) for value in os.getloadavg()],
        **versions,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = {line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")}
    bf16 = any("avx512_bf16" in line for line in lines)
    return f"{', '.join(sorted(names))}{' with avx512_bf16' if bf16 else ''}"


def describe(values: dict[str, Any]) -> str:
    """Return the machine in one line."""
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose columns line up."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in [header, *rows]]
    rule = ["-" * width for width in widths]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [lines[0], rule, *lines[1:]])


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write results for a machine to read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
