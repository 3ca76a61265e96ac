"""The thorough checks on every rank; rank 0 hears what the others found."""

from collections.abc import Iterator
from dataclasses import replace

from xlmrxl_train.config import Config, StrategyConfig
from xlmrxl_train.doctor.finding import GOOD, Finding
from xlmrxl_train.doctor.thorough import of_all_ranks, thorough
from xlmrxl_train.parallel import World, naming_lost_ranks


def examine(config: Config | None) -> Iterator[Finding]:
    """Yield this rank's findings and those of all together; rank 0 also what others have that is not good.

    Raises:
        ConfigError: The device is not there, or the ranks cannot meet.
        RankLostError: One of them did not answer.
    """
    with naming_lost_ranks():
        world = World.open(config.strategy if config else StrategyConfig())
        try:
            own = []
            for finding in thorough(config, world):
                own.append(finding)
                yield finding
            yield from of_all_ranks(config, world)
            for rank, findings in enumerate(world.gather(own)):
                for finding in findings:
                    if rank and finding.state != GOOD:
                        yield replace(finding, name=f"rank {rank}: {finding.name}")
        finally:
            world.close()
