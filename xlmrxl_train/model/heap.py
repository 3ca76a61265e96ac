"""Memory that the C library keeps for itself."""

import ctypes


def release_free_memory() -> None:
    """Give the system back what was freed: small tensors that stay would hold what lay between them.

    glibc alone needs and knows this call.
    """
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
