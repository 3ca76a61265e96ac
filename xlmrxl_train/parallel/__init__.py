"""How one model is spread over processes. The only package that imports torch.distributed, accelerate or an engine."""

from torch import nn

from xlmrxl_train.config import Config, DDPConfig, FSDP2Config, StrategyConfig, ZeroConfig
from xlmrxl_train.parallel.agreement import differences, same_versions, versions
from xlmrxl_train.parallel.blueprint import Blueprint
from xlmrxl_train.parallel.board import Statement, name_ranks
from xlmrxl_train.parallel.single import SingleStrategy
from xlmrxl_train.parallel.strategy import StepResult, Strategy
from xlmrxl_train.parallel.world import World, from_first_rank, naming_lost_ranks

__all__ = [
    "Blueprint",
    "Statement",
    "StepResult",
    "Strategy",
    "World",
    "check_engine",
    "differences",
    "from_first_rank",
    "make_strategy",
    "name_ranks",
    "naming_lost_ranks",
    "same_versions",
    "versions",
]


def check_engine(world: World, config: StrategyConfig, model: nn.Module) -> None:
    """Make sure, before anything is loaded, that the strategy's engine can do what is asked of it.

    Args:
        world: Its device and number of ranks.
        config: The strategy.
        model: As it will be, on any device; "meta" takes no memory.

    Raises:
        ConfigError: Something is missing, or is not for this device or number of ranks.
    """
    if isinstance(config, ZeroConfig):
        from xlmrxl_train.parallel.zero_needs import check_needs

        check_needs(world, config, model)


def make_strategy(config: Config, world: World, blueprint: Blueprint) -> Strategy:
    """Spread a model as `config.strategy` says; `auto` is one process, or ddp where a launcher started several.

    An engine is imported when it is used, not before.
    """
    chosen, precision, max_grad_norm = config.strategy, config.train.precision, config.train.max_grad_norm
    if isinstance(chosen, ZeroConfig):
        from xlmrxl_train.parallel.zero import ZeroStrategy

        recompute = config.train.recompute != "none"
        return ZeroStrategy(world, blueprint, precision, max_grad_norm, chosen, recompute=recompute)
    if isinstance(chosen, FSDP2Config):
        from xlmrxl_train.parallel.fsdp2 import FSDP2Strategy

        return FSDP2Strategy(world, blueprint, precision, max_grad_norm, chosen)
    if chosen.name == "ddp" or (chosen.name == "auto" and world.size > 1):
        from xlmrxl_train.parallel.ddp import DDPStrategy

        bucket_mb = chosen.bucket_mb if isinstance(chosen, DDPConfig) else DDPConfig().bucket_mb
        return DDPStrategy(world, blueprint, precision, max_grad_norm, bucket_mb)
    return SingleStrategy(world, blueprint, precision, max_grad_norm)
