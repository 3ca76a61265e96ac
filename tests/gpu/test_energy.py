"""The counter of a GPU's energy: it counts, and more where the GPU works."""

import time

import torch

from tests.gpu import needs_gpu
from xlmrxl_train.training.energy import energy_meter

pytestmark = needs_gpu


def test_a_gpu_takes_more_when_it_works() -> None:
    meter = energy_meter(torch.device("cuda"))
    assert meter is not None
    matrix = torch.ones(8192, 8192, device="cuda", dtype=torch.bfloat16)
    torch.cuda.synchronize()
    taken = []
    for works in (False, True):
        meter()
        end = time.monotonic() + 1
        while time.monotonic() < end:
            if works:
                matrix @ matrix
                torch.cuda.synchronize()
        taken.append(meter())
    idle, working = taken
    assert 5 < idle < working < 1500
