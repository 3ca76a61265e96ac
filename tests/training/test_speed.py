"""The numbers of a line of the log that are measured."""

import pytest
import torch

from xlmrxl_train import load_config
from xlmrxl_train.parallel.matrix_peak import matrix_peak
from xlmrxl_train.session import Session
from xlmrxl_train.training.speed import Speed


def speed_of(*words: str) -> Speed:
    session = Session.open(
        load_config(["model=tiny", "strategy.device=cpu", "data.source=sample", *words]), training=True
    )
    return Speed.of(session.config, session.strategy())


def test_flops_of_a_token_are_six_for_each_weight_of_a_layer() -> None:
    speed = speed_of("recipe=demo", "model.path=null")
    weights = 2 * (4 * 64 * 64 + 2 * 64 * 256)
    assert speed.flops_per_token == 6 * weights
    assert speed.flops_per_target == 0


def test_a_language_models_head_counts_for_each_target() -> None:
    speed = speed_of("recipe=demo_pretrain")
    assert speed.flops_per_target == 6 * 64 * 1025


def test_a_line_is_over_what_was_counted_since_the_last_one() -> None:
    speed = Speed(device=torch.device("cpu"), flops_per_token=10.0, flops_per_target=5.0, peak=1000.0)
    speed.count(tokens=100, targets=20, seconds=3.0, waited=1.0)
    speed.count(tokens=100, targets=20, seconds=1.0, waited=1.0)
    values = speed.values()
    assert values.pop("memory_gb") > 0.1
    assert values == {"tokens_per_second": 50.0, "matrix_share": 0.55, "input_wait": 0.5}
    assert speed.values()["tokens_per_second"] == 0


def test_without_flops_there_is_no_share() -> None:
    assert "matrix_share" not in Speed(device=torch.device("cpu")).values()


def test_measuring_takes_no_random_number_of_the_run() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    assert matrix_peak(torch.float32, torch.device("cpu")) > 1e8
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu() -> None:
    assert matrix_peak(torch.bfloat16, torch.device("cuda")) > 1e12
    assert "gpu_memory_gb" in Speed(device=torch.device("cuda")).values()
