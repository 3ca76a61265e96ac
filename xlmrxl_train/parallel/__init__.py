"""How one model is spread over processes. The only package that imports torch.distributed, accelerate or an engine."""

from torch import nn

from xlmrxl_train.config import Config, DDPConfig
from xlmrxl_train.parallel.single import SingleStrategy
from xlmrxl_train.parallel.strategy import MakeOptimizer, StepResult, Strategy
from xlmrxl_train.parallel.world import World, from_first_rank, naming_lost_ranks

__all__ = ["StepResult", "Strategy", "World", "from_first_rank", "make_strategy", "naming_lost_ranks"]


def make_strategy(config: Config, world: World, model: nn.Module, make_optimizer: MakeOptimizer) -> Strategy:
    """Spread `model` as `config.strategy` says; `auto` is one process, or ddp where a launcher started several."""
    precision, max_grad_norm = config.train.precision, config.train.max_grad_norm
    if config.strategy.name == "ddp" or (config.strategy.name == "auto" and world.size > 1):
        from xlmrxl_train.parallel.ddp import DDPStrategy  # accelerate takes a second to import

        bucket_mb = config.strategy.bucket_mb if isinstance(config.strategy, DDPConfig) else DDPConfig().bucket_mb
        return DDPStrategy(world, model, make_optimizer, precision, max_grad_norm, bucket_mb)
    return SingleStrategy(world, model, make_optimizer, precision, max_grad_norm)
