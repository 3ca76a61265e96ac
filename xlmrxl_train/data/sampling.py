"""How often each example is seen in an epoch, where small training tables are to count more than by their size.

A table is what one data set has in one language. With temperature T a table of n examples has the weight n^(1/T):
T = 1 leaves the proportions as they are, a larger one flattens them, and in the limit all tables count alike.
Source: arXiv 1901.07291 (XLM) and 1911.02116 (XLM-R), which sample languages at random by n^alpha, alpha = 1/T, 0.3 for
XLM-R; here an epoch has exactly these shares, and as many examples as all tables together.
"""

from collections.abc import Sequence
from decimal import Decimal, localcontext
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def epoch_shares(sizes: Sequence[int], temperature: float) -> list[int]:
    """Return how many examples each table gives to an epoch; together as many as there are.

    Each is its share by weight, rounded up or down: what rounding down leaves goes to the largest fractions. Decimal
    arithmetic makes that the same on every machine, whose functions for floating-point powers differ.

    Args:
        sizes: Examples of each table, at least 1.
        temperature: At least 1.
    """
    total = sum(sizes)
    with localcontext(prec=40):
        weights = [(Decimal(size).ln() / Decimal(str(temperature))).exp() for size in sizes]
        exact = [total * weight / sum(weights) for weight in weights]
        shares = [int(share) for share in exact]
        by_fraction = sorted(range(len(sizes)), key=lambda table: shares[table] - exact[table])
    for table in by_fraction[: total - sum(shares)]:
        shares[table] += 1
    return shares


@lru_cache(maxsize=2)
def epoch_examples(sizes: tuple[int, ...], temperature: float, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the examples of an epoch in ascending order, in the common numbering of the tables; read-only.

    Within a table, the numbers of times that two examples are seen differ by at most 1, in every epoch and over any
    number of epochs from the first: those that are seen once more are the next ones, epoch after epoch, of an order
    drawn once.

    Args:
        sizes: Examples of each table, at least 1.
        temperature: At least 1; with 1, every example is there once.
        seed: Of the data order.
        epoch: From 0.
    """
    parts, start = [], 0
    for table, (size, share) in enumerate(zip(sizes, epoch_shares(sizes, temperature), strict=True)):
        times, more = divmod(share, size)
        again = _order(size, seed, table)[(epoch * more + np.arange(more)) % size]
        parts.append(start + np.sort(np.concatenate([np.repeat(np.arange(size), times), again])))
        start += size
    examples: NDArray[np.int64] = np.concatenate(parts)
    examples.flags.writeable = False
    return examples


def _order(size: int, seed: int, table: int) -> NDArray[np.int64]:
    """Return an order of a table's examples; the third number keeps its stream from those of `epoch_order`."""
    bits = np.random.PCG64(np.random.SeedSequence([seed, table, 1])).random_raw(size)
    return np.argsort(bits, kind="stable")
