"""The learning rate as a function of the step."""

import pytest

from xlmrxl_train.config import ScheduleConfig
from xlmrxl_train.training.schedule import learning_rate, warmup_steps


def rates(total: int, **settings) -> list[float]:
    return [learning_rate(ScheduleConfig(**settings), 1.0, step, total) for step in range(total)]


def test_linear_rises_to_the_peak_and_falls_to_zero() -> None:
    values = rates(10, name="linear", warmup=0.2)
    assert values[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert values[-1] == pytest.approx(1 / 8)  # the step after the last would have 0
    assert learning_rate(ScheduleConfig(name="linear", warmup=0.2), 1.0, 10, 10) == 0.0


def test_warmup_from_one_counts_steps() -> None:
    assert warmup_steps(ScheduleConfig(warmup=3), 1000) == 3
    assert warmup_steps(ScheduleConfig(warmup=0.06), 1000) == 60
    assert warmup_steps(ScheduleConfig(warmup=0.0), 1000) == 0


def test_cosine_and_constant() -> None:
    cosine = rates(100, name="cosine", warmup=0, final=0.1)
    assert cosine[0] == 1.0
    assert cosine[50] == pytest.approx(0.55)
    assert cosine[-1] > 0.1
    assert rates(5, name="constant", warmup=0) == [1.0] * 5


def test_a_warmup_longer_than_the_run_never_divides_by_zero() -> None:
    assert max(rates(3, name="linear", warmup=50)) < 0.1
