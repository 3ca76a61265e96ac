"""How much memory a device has."""

import os
from pathlib import Path

import torch

TRAINING_BYTES = 12  # of a trained parameter beside its weight: gradient and AdamW's two moments, float32
# Where a container sees its own limit: cgroups of version 2 and 1.
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def memory_of(device: torch.device) -> int:
    """Return the bytes of a GPU, or those that this machine has and lets this process use."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    limits = [path.read_text(encoding="ascii").strip() for path in _LIMITS if path.is_file()]
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([installed, *(int(limit) for limit in limits if limit.isdecimal())])  # "max": no limit
