"""Which examples form a step, and how a step is cut: pure functions of numbers.

Two levels. Which examples form optimizer step k depends on (number of examples, seed, epoch, batch size) and on
nothing else, so it is the same on 1 GPU and on 64, and resuming is a position in it. How a step is cut into
micro-batches depends on (sizes, world size, token budget). The atom is the example: its windows or choices stay
together.
"""

import heapq
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@lru_cache(maxsize=4)
def epoch_order(num_examples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of all examples in one epoch: a permutation, read-only.

    It sorts raw 64-bit numbers of PCG64, whose stream numpy guarantees for all its versions, while that of
    `Generator.permutation` may change.
    """
    bits = np.random.PCG64(np.random.SeedSequence([seed, epoch])).random_raw(num_examples)
    order = np.argsort(bits, kind="stable")
    order.flags.writeable = False
    return order


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Return the number of optimizer steps in one epoch; the last one may be smaller."""
    return -(-num_examples // batch_size)


def step_examples(num_examples: int, batch_size: int, seed: int, epoch: int, step_in_epoch: int) -> NDArray[np.int64]:
    """Return the examples of one optimizer step; the last step of an epoch has what is left.

    Args:
        num_examples: Examples of the training set.
        batch_size: Examples per step over all ranks.
        seed: Of the data order.
        epoch: From 0.
        step_in_epoch: From 0, below `steps_per_epoch`.
    """
    assert 0 <= step_in_epoch < steps_per_epoch(num_examples, batch_size)
    start = step_in_epoch * batch_size
    return epoch_order(num_examples, seed, epoch)[start : start + batch_size]


def micro_batches(sizes: Sequence[int], world_size: int, token_budget: int) -> list[list[list[int]]]:
    """Cut one step into micro-batches for every rank.

    Ranks get nearly the same number of tokens (they differ by at most the largest example) and exactly the same
    number of micro-batches, the fewest that the budget allows by greedy packing.

    Args:
        sizes: Tokens of each of the step's examples, over all its sequences.
        world_size: Number of ranks.
        token_budget: Tokens of one micro-batch on one rank. An example beyond it stands alone.

    Returns:
        [rank][micro-batch] -> positions in `sizes`, longest first; an empty list where a rank has no work.
    """
    shares = _spread(_longest_first(sizes), sizes, world_size)
    cuts = [_fewest_bins(share, sizes, token_budget) for share in shares]
    count = max(map(len, cuts), default=0)
    return [_even_out(cut, share, sizes, count, token_budget) for cut, share in zip(cuts, shares, strict=True)]


def evaluation_batches(sizes: Sequence[int], token_budget: int) -> list[list[int]]:
    """Cut examples into batches without knowing the world size, so that a score does not depend on it.

    Args:
        sizes: Tokens of each example, over all its sequences.
        token_budget: Tokens of one batch. An example beyond it stands alone.

    Returns:
        Positions in `sizes`, longest first over all batches.
    """
    batches: list[list[int]] = []
    room = 0
    for position in _longest_first(sizes):
        if not batches or sizes[position] > room:
            batches.append([])
            room = token_budget
        batches[-1].append(position)
        room -= sizes[position]
    return batches


def _longest_first(sizes: Sequence[int]) -> list[int]:
    return sorted(range(len(sizes)), key=lambda position: -sizes[position])


def _spread(positions: Sequence[int], sizes: Sequence[int], num_bins: int) -> list[list[int]]:
    """Give each position, longest first, to the bin with the fewest tokens so far."""
    bins: list[list[int]] = [[] for _ in range(num_bins)]
    loads = [(0, index) for index in range(num_bins)]
    for position in positions:
        load, index = loads[0]
        bins[index].append(position)
        heapq.heapreplace(loads, (load + sizes[position], index))
    return bins


def _fewest_bins(positions: Sequence[int], sizes: Sequence[int], budget: int) -> list[list[int]]:
    """Put each position, longest first, into the first bin with room."""
    bins: list[list[int]] = []
    rooms: list[int] = []
    for position in positions:
        index = next((i for i, room in enumerate(rooms) if sizes[position] <= room), len(bins))
        if index == len(bins):
            bins.append([])
            rooms.append(budget)
        bins[index].append(position)
        rooms[index] -= sizes[position]
    return bins


def _even_out(
    cut: list[list[int]], share: Sequence[int], sizes: Sequence[int], count: int, budget: int
) -> list[list[int]]:
    """Make `count` micro-batches of a rank's share, of nearly equal tokens where the budget allows it."""
    even = _spread(share, sizes, count)
    if all(len(part) <= 1 or sum(sizes[position] for position in part) <= budget for part in even):
        return even
    return cut + [[] for _ in range(count - len(cut))]
