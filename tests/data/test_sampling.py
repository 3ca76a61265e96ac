"""How often examples are seen under a sampling temperature, as properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlmrxl_train.data.planning import epoch_order, step_examples, steps_per_epoch
from xlmrxl_train.data.sampling import epoch_examples, epoch_shares

SIZES = st.lists(st.integers(1, 300), min_size=1, max_size=8)
TEMPERATURES = st.floats(1.0, 1e6)
SEEDS = st.integers(0, 2**40)


def times_seen(examples: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    counts = np.bincount(examples, minlength=sum(sizes))
    return np.split(counts, np.cumsum(sizes)[:-1])


@given(sizes=SIZES, temperature=TEMPERATURES)
def test_shares_are_the_weights_rounded(sizes: list[int], temperature: float) -> None:
    shares = epoch_shares(sizes, temperature)
    assert sum(shares) == sum(sizes)
    weights = np.array(sizes, dtype=float) ** (1 / temperature)
    exact = sum(sizes) * weights / weights.sum()
    assert (np.abs(shares - exact) < 1 + 1e-9).all()
    assert min(shares) >= 1
    # The larger table gives no fewer, but a smaller part of itself.
    for one, its in zip(sizes, shares, strict=True):
        for other, others in zip(sizes, shares, strict=True):
            assert one < other or its >= others - 1
            assert one < other or its / one <= (others + 2) / other


@pytest.mark.parametrize(
    ("sizes", "temperature", "shares"),
    [
        ([900, 100], 1.0, [900, 100]),
        ([900, 100], 2.0, [750, 250]),  # 30 : 10
        ([900, 100], 1e9, [500, 500]),
        ([1, 1, 2], 1e9, [1, 1, 2]),  # 4/3 each, and the largest has the largest fraction
        ([392_702, 10], 1.0, [392_702, 10]),
        ([1_000_000, 1_000], 1 / 0.3, [889_072, 111_928]),  # 10^1.8 : 10^0.9
    ],
)
def test_shares_by_hand(sizes: list[int], temperature: float, shares: list[int]) -> None:
    assert epoch_shares(sizes, temperature) == shares


@given(sizes=SIZES, temperature=TEMPERATURES, seed=SEEDS, epochs=st.integers(1, 5))
def test_examples_of_a_table_are_seen_equally_often(
    sizes: list[int], temperature: float, seed: int, epochs: int
) -> None:
    shares = epoch_shares(sizes, temperature)
    seen = np.zeros(sum(sizes), dtype=np.int64)
    for epoch in range(epochs):
        examples = epoch_examples(tuple(sizes), temperature, seed, epoch)
        assert len(examples) == sum(sizes) and (np.diff(examples) >= 0).all()
        for share, size, counts in zip(shares, sizes, times_seen(examples, sizes), strict=True):
            assert counts.sum() == share
            assert set(counts.tolist()) <= {share // size, -(-share // size)}
        seen += np.bincount(examples, minlength=len(seen))
        for counts in np.split(seen, np.cumsum(sizes)[:-1]):  # and so are they over the epochs
            assert counts.max() - counts.min() <= 1


@given(sizes=SIZES, seed=SEEDS, epoch=st.integers(0, 9))
def test_temperature_1_is_every_example_once(sizes: list[int], seed: int, epoch: int) -> None:
    assert epoch_examples(tuple(sizes), 1.0, seed, epoch).tolist() == list(range(sum(sizes)))


@given(sizes=SIZES, temperature=TEMPERATURES, seed=SEEDS, epoch=st.integers(0, 9), batch=st.integers(1, 50))
def test_the_steps_of_an_epoch_have_its_examples(
    sizes: list[int], temperature: float, seed: int, epoch: int, batch: int
) -> None:
    examples, total = epoch_examples(tuple(sizes), temperature, seed, epoch), sum(sizes)
    steps = [examples[step_examples(total, batch, seed, epoch, k)] for k in range(steps_per_epoch(total, batch))]
    assert np.sort(np.concatenate(steps)).tolist() == examples.tolist()
    assert np.concatenate(steps).tolist() == examples[epoch_order(total, seed, epoch)].tolist()


def test_the_examples_of_an_epoch_never_change() -> None:
    # Resuming an old run depends on these very numbers.
    assert epoch_examples((8, 2), 2.0, 1, 0).tolist() == GOLDEN[0]
    assert epoch_examples((8, 2), 2.0, 1, 1).tolist() == GOLDEN[1]
    assert epoch_examples((8, 2), 2.0, 2, 0).tolist() not in GOLDEN
    with pytest.raises(ValueError, match="read-only"):
        epoch_examples((8, 2), 2.0, 1, 0)[0] = 5


GOLDEN = [[0, 1, 2, 3, 4, 5, 7, 8, 9, 9], [0, 1, 3, 4, 5, 6, 7, 8, 8, 9]]
