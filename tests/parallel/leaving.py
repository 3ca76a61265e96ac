"""Runs under torchrun: ranks that leave while threads of the process group wait for Python's lock.

python leaving.py <n> [override ...]      n runs that end well, one after the other in the same process
python leaving.py fault [override ...]    an exception that comes before the group is closed
"""

import sys
from pathlib import Path

from xlmrxl_train import load_config
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.parallel import Strategy, World
from xlmrxl_train.session import Session

WORDS = ["recipe=demo", "model.path=null", "strategy.device=cpu", *sys.argv[2:]]


def work() -> tuple[World, Strategy]:
    """Join, and leave the group's threads with something to free for which they need the lock."""
    session = Session.open(load_config(WORDS))
    world, strategy = session.world, session.strategy()
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
    for _ in range(int(sys.argv[1])):
        world, strategy = work()
        world.close()
        del strategy
        print(f"{num_group_threads()} threads left")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ConfigError:
        sys.exit(2)
