"""Energy by the GPUs' own counters, and what the protocol card makes of it."""

import pytest
import torch

from xlmrxl_train.evaluation.html.history import History
from xlmrxl_train.evaluation.html.protocol_card import _energy
from xlmrxl_train.training.energy import energy_meter

H100 = {"gpus": ["NVIDIA H100 80GB HBM3"], "world_size": 2}


def test_a_cpu_has_no_counter() -> None:
    assert energy_meter(torch.device("cpu")) is None


def test_measured_energy_is_preferred_and_named() -> None:
    history = History()
    for step in (10, 20):
        history.count({"step": step, "energy_wh": 250.0})
    history.undo(10)  # what the guard undid was consumed nevertheless
    measured = history.energy
    assert measured == 500.0
    assert _energy(H100, 3600.0, [measured, measured]).startswith("measured: 1 kWh by the counters of the GPUs (NVML)")
    history.count({"step": 30})
    partly = history.energy
    assert partly is None and History().energy is None
    said = "estimated: at most 1.4 kWh, 2 x 700 W of board power for 1:00:00, without host and cooling"
    assert _energy(H100, 3600.0, [measured, partly]) == said


@pytest.mark.parametrize(
    ("name", "watt"),
    [
        ("NVIDIA A100-PCIE-40GB", 250),
        ("NVIDIA A100-SXM4-80GB", 400),
        ("NVIDIA A100 80GB PCIe", 300),
        ("NVIDIA H200 NVL", 600),
        ("NVIDIA L40S", 350),
        ("Tesla T4", 70),
        ("Tesla V100-SXM2-16GB", 300),
        ("NVIDIA GeForce RTX 4090", 450),
        ("NVIDIA A10G", 300),
        ("NVIDIA GB200", None),
        ("NVIDIA GH200 480GB", None),
    ],
)
def test_the_power_of_a_board(name: str, watt: int | None) -> None:
    said = _energy({"gpus": [name]}, 3600.0, [None])
    known = f"estimated: at most {(watt or 0) / 1000:.3g} kWh, 1 x {watt} W of board power"
    assert said.startswith(known if watt else f"not estimated: the power of {name} is not known")
