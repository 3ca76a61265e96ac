"""Runs under torchrun: ranks that leave while threads of the process group wait for Python's lock.

python leaving.py close    a run that ends well; then a second one in the same process
python leaving.py fault    an exception that comes before the group is closed
"""

import sys
from pathlib import Path

import torch
from torch import nn

from xlmrxl_train.config import StrategyConfig
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.parallel import World
from xlmrxl_train.parallel.ddp import DDPStrategy


def work() -> tuple[World, DDPStrategy]:
    """Join, and leave the group's threads with something to free for which they need the lock."""
    world = World.open(StrategyConfig(device="cpu"))
    strategy = DDPStrategy(world, nn.Linear(4, 4), lambda model: torch.optim.AdamW(model.parameters()), "fp32", 1, 25)
    for _ in range(20):
        assert world.first(lambda: world.rank) == 0
    return world, strategy


def num_group_threads() -> int:
    names = [(task / "comm").read_text() for task in Path("/proc/self/task").iterdir()]
    return sum("gloo" in name for name in names)


def main() -> int:
    sys.setswitchinterval(1000)  # Python's lock is not handed over on its own
    if sys.argv[1] == "fault":
        kept = work()
        raise ConfigError(f"rank {kept[0].rank} has a fault")
    for _ in range(2):
        world, strategy = work()
        world.close()
        del strategy
        assert num_group_threads() == 0
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ConfigError:
        sys.exit(2)
