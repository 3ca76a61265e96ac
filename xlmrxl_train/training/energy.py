"""How much energy this rank's GPU took, from the counter that NVIDIA's GPUs have since Volta.

Source: NVML API reference, nvmlDeviceGetTotalEnergyConsumption: millijoules since the driver was loaded. NVML is part
of the driver, so that nothing must be installed.
"""

import ctypes
from collections.abc import Callable

import torch

LIBRARY = "libnvidia-ml.so.1"


def energy_meter(device: torch.device) -> Callable[[], float] | None:
    """Return what gives the joules since it was last called, or None where they cannot be known.

    They are those of the whole board, whoever uses it.
    """
    if device.type != "cuda":
        return None
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:  # not NVIDIA's
        return None
    handle, count = ctypes.c_void_p(), ctypes.c_ulonglong()
    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}".encode()
    if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByUUID(uuid, ctypes.byref(handle)):
        return None

    def read() -> int:
        failed = library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(count))
        return -1 if failed else count.value

    last = read()
    if last < 0:  # an older GPU, or a part of one
        return None

    def lap() -> float:
        nonlocal last
        before, last = last, max(last, read())
        return (last - before) / 1000

    return lap
