"""A name for a start of the job, in the launcher's key-value store.

torchrun keeps its store when it starts ranks again, with what the earlier ranks wrote: addresses of processes that are
gone, answers to old questions. Nothing that it tells the ranks is sure to differ from one start to the next (each
machine counts its own restarts), so rank 0 draws a name, under which all keys of this start lie.
"""

import secrets
import time
from datetime import timedelta

import torch.distributed as dist

PAUSE = 0.02


def meet(store: dist.Store, rank: int, size: int, limit: timedelta) -> str:
    """Return the name that rank 0 drew for this start, when all ranks have it.

    Raises:
        DistError: A rank did not come within the limit.
    """
    own = secrets.token_hex(8)
    if rank == 0:
        _answer(store, own, set(range(1, size)), time.monotonic() + limit.total_seconds())
        return own
    store.set(f"asking/{rank}", own)
    store.wait([f"answer/{own}"], limit)
    name: str = store.get(f"answer/{own}").decode()
    store.set(f"met/{name}/{rank}", "")
    return name


def _answer(store: dist.Store, name: str, missing: set[int], end: float) -> None:
    """Tell the name to every rank that asks, until each has it; one that asked in an earlier start will not take it."""
    answered: set[str] = set()
    while missing:
        for rank in sorted(missing):
            if store.check([f"asking/{rank}"]) and (asker := store.get(f"asking/{rank}").decode()) not in answered:
                store.set(f"answer/{asker}", name)
                answered.add(asker)
            if store.check([f"met/{name}/{rank}"]):
                missing.discard(rank)
        if missing and time.monotonic() > end:
            raise dist.DistStoreError(f"{len(missing)} ranks did not come, the first of them rank {min(missing)}")
        time.sleep(PAUSE)
