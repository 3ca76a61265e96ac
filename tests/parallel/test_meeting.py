"""Every start of a job has keys of its own, though the store keeps those of the starts before."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist

from xlmrxl_train.parallel.meeting import meet


def test_ranks_that_start_again_meet_under_another_name() -> None:
    store = dist.TCPStore("localhost", 0, is_master=True)
    names = []
    for size in (3, 3, 2):
        with ThreadPoolExecutor(size) as threads:
            ranks = [threads.submit(meet, store.clone(), rank, size, timedelta(seconds=20)) for rank in range(size)]
            names.append({rank.result() for rank in ranks})
    assert [len(name) for name in names] == [1, 1, 1]
    assert len(set.union(*names)) == 3


def test_a_rank_that_does_not_come_is_named() -> None:
    store = dist.TCPStore("localhost", 0, is_master=True)
    store.set("asking/1", "a rank of an earlier start")
    with pytest.raises(dist.DistError, match="1 ranks did not come, the first of them rank 1"):
        meet(store, 0, 2, timedelta(seconds=0.3))
