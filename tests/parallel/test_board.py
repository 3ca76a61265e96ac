"""How differences between ranks are told; tests/training/test_agreement.py makes some."""

import pytest

from xlmrxl_train.parallel import Statement, differences, name_ranks


def statements(*values: str, ranks_per_host: int = 2) -> list[Statement]:
    return [
        Statement(rank=rank, host=f"node-{rank // ranks_per_host}", value={"torch": value})
        for rank, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("ranks", "named"),
    [
        ([0], "rank 0 (node-0)"),
        ([0, 1], "ranks 0-1 (node-0)"),
        ([1, 2, 3, 5], "ranks 1 (node-0), 2-3 (node-1), 5 (node-2)"),
        (range(12), "ranks 0-1 (node-0), 2-3 (node-1), 4-5 (node-2), 6-7 (node-3), 2 more machines"),
    ],
)
def test_ranks_are_named_by_machine(ranks, named) -> None:
    everyone = statements(*["x"] * 12)
    assert name_ranks(everyone[rank] for rank in ranks) == named


def test_a_difference_names_each_value_and_who_has_it() -> None:
    assert differences(statements("2.13", "2.13", "2.13", "2.13"), remedy="Mend it") == []
    assert differences(statements("2.13", "2.13", "2.12", "2.13"), remedy="Mend it") == [
        "torch must be the same on every rank, got 2.13 on ranks 0-1 (node-0), 3 (node-1); 2.12 on rank 2 (node-1). "
        "Mend it."
    ]
