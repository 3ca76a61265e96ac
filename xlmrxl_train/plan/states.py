"""What one rank holds under each strategy beside activations, counted from shapes: see the engines in `parallel/`.

"On the way" is what is held for a moment: weights gathered from other ranks, gradients before they are divided.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType

import torch
from torch import nn

from xlmrxl_train.config import (
    Config,
    FSDP2Config,
    LoraTuningConfig,
    Zero1Config,
    Zero2Config,
    Zero3Config,
    Zero3NvmeConfig,
    Zero3OffloadConfig,
    ZeroConfig,
)
from xlmrxl_train.model.active_embedding import ActiveEmbedding
from xlmrxl_train.model.rounded_linear import RoundedLinear
from xlmrxl_train.parallel.blueprint import units_of
from xlmrxl_train.parallel.strategy import forward_dtype
from xlmrxl_train.parallel.zero_settings import MB

MASTER = 4  # bytes of a float32 weight or gradient
BLOCK = 1 << 26  # bytes that are read of a file at a time
EIGHT_BIT_ROWS, EIGHT_BIT_BLOCK = 1024, 256
ROUNDED = {"int8": 1.0, "nf4": 0.5 + 1 / 64 + 4 / (64 * 256)}  # bytes of an element, with nf4's two levels of scales
SUB_GROUP = 1_000_000_000  # elements that ZeRO-3 updates at a time, DeepSpeed's default


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One parameter."""

    shape: tuple[int, ...]
    trained: bool
    unit: int | None  # which of the modules that are divided on their own; None: what lies outside of them
    kept: int | None = None  # bytes of an element that is frozen; None: those of the dtype of products
    idle: bool = False  # whether training reads none of it: the rows of words that the training set lacks

    @property
    def numel(self) -> int:
        """Elements."""
        return prod(self.shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shapes:
    """The parameters of a model, each once where it is tied."""

    parts: list[Part]
    rounded: Mapping[str, int] = field(default_factory=dict)
    """Elements of matrices that lie whole on every rank in int8 or nf4, and are no parameters."""

    @classmethod
    def of(
        cls, model: nn.Module, block: type[nn.Module], kept: Mapping[str, torch.dtype] = MappingProxyType({})
    ) -> "Shapes":  # fmt: skip
        """Look at a model, on any device.

        Args:
            model: With its parameters trained or frozen as they will be.
            block: Its repeated layer.
            kept: What frozen parameters are held in, where that is not the dtype of products.
        """
        idle = {id(module.frozen.weight) for module in model.modules() if isinstance(module, ActiveEmbedding)}
        number = {
            id(parameter): index for index, unit in enumerate(units_of(model, block)) for parameter in unit.parameters()
        }
        rounded: dict[str, int] = {}
        for module in model.modules():
            if isinstance(module, RoundedLinear):
                size = module.in_features * module.out_features
                rounded[module.kind] = rounded.get(module.kind, 0) + size
        return cls(
            rounded=rounded,
            parts=[
                Part(
                    shape=tuple(item.shape),
                    trained=item.requires_grad,
                    unit=number.get(id(item)),
                    kept=kept[name].itemsize if name in kept else None,
                    idle=id(item) in idle,
                )
                for name, item in model.named_parameters()
            ],
        )

    @property
    def trained(self) -> int:
        """Elements that an optimizer moves."""
        return sum(part.numel for part in self.parts if part.trained)

    @property
    def frozen(self) -> int:
        """The other elements."""
        return sum(part.numel for part in self.parts if not part.trained)

    @property
    def read(self) -> int:
        """Elements that a training step reads."""
        return sum(part.numel for part in self.parts if not part.idle)

    @property
    def all(self) -> int:
        """Elements of the whole model."""
        return self.trained + self.frozen + sum(self.rounded.values())

    @property
    def rounded_bytes(self) -> float:
        """Return what matrices in int8 or nf4 take."""
        return sum(ROUNDED[kind] * size for kind, size in self.rounded.items())

    def frozen_bytes(self, product: int) -> float:
        """Return what the frozen ones take."""
        return float(sum(part.numel * (part.kept or product) for part in self.parts if not part.trained))

    def moments(self, config: Config) -> float:
        """Return the bytes of an optimizer's moments per trained element."""
        eight_bit = config.optimizer.name == "adamw_8bit"
        each = 1 + MASTER / EIGHT_BIT_BLOCK  # and a scale per block
        sizes = [
            2 * part.numel * (each if eight_bit and _in_eight_bits(part.shape) else MASTER)
            for part in self.parts
            if part.trained
        ]
        return sum(sizes) / max(1, self.trained)

    @property
    def largest_trained(self) -> int:
        """Elements of the largest parameter that an optimizer moves: the embedding, as a rule."""
        return max((part.numel for part in self.parts if part.trained), default=0)

    def of_units(self) -> list[int]:
        """Return the elements of each module that is divided on its own, the largest first."""
        sizes: dict[int, int] = {}
        for part in self.parts:
            if part.unit is not None and not part.idle:
                sizes[part.unit] = sizes.get(part.unit, 0) + part.numel
        return sorted(sizes.values(), reverse=True) or [0]

    @property
    def outside(self) -> int:
        """Elements that lie in no such module."""
        return sum(part.numel for part in self.parts if part.unit is None)


@dataclass(kw_only=True, slots=True)
class States:
    """Bytes of one rank: on its device where nothing else is said."""

    weights: float = 0.0
    gradients: float = 0.0  # at their most
    optimizer: float = 0.0  # moments, and float32 weights beside those that forward reads
    buffers: float = 0.0
    layers: float = 0.0  # on the way while layers run
    end: float = 0.0  # on the way when the embedding's gradient is there
    step: float = 0.0  # on the way while the optimizer runs
    whole_gradients: bool = False  # gradients come to be while activations go
    loading: float = 0.0  # the most at once until the first step
    host: float = 0.0  # in host memory at all times
    saving: float = 0.0  # in host memory while a checkpoint is written in the background
    disk: float = 0.0  # on a local disk at all times
    sent: float = 0.0  # bytes that the rank sends per step

    @property
    def lasting(self) -> float:
        """What is there whenever a step ends, with gradients."""
        return self.weights + self.gradients + self.optimizer + self.buffers


def _in_eight_bits(shape: tuple[int, ...]) -> bool:
    """Whether optimizer.name=adamw_8bit rounds a parameter's moments, as parallel/adamw_8bit.py decides."""
    return len(shape) == 2 and shape[0] >= EIGHT_BIT_ROWS and shape[1] % EIGHT_BIT_BLOCK == 0


def is_divided(config: Config) -> bool:
    """Whether the engine gives forward weights in the dtype of products, instead of float32 ones under autocast."""
    return isinstance(config.strategy, FSDP2Config | ZeroConfig)


def states_of(config: Config, shapes: Shapes, ranks: int, micro_batches: int = 1) -> States:
    """Return what a rank holds while it trains.

    Args:
        config: Strategy, precision and optimizer.
        shapes: Of the model.
        ranks: That share the work.
        micro_batches: Of a step on each rank.
    """
    product = forward_dtype(config.train.precision).itemsize
    moments = shapes.moments(config)
    strategy = config.strategy
    if isinstance(strategy, FSDP2Config):
        states = _fsdp2(strategy, shapes, ranks, micro_batches, product, moments)
    elif isinstance(strategy, Zero3Config):
        states = _zero3(strategy, shapes, ranks, micro_batches, product, moments)
    elif isinstance(strategy, ZeroConfig):
        states = _zero(strategy, shapes, ranks, micro_batches, product, moments)
    else:
        states = _whole(shapes, ranks, micro_batches, product, moments)
    states.weights += shapes.rounded_bytes
    states.loading += shapes.rounded_bytes
    if isinstance(config.tuning, LoraTuningConfig):  # its checkpoints lack the weights below
        states.saving = (MASTER + moments) * shapes.trained / (ranks if is_divided(config) else 1)
    if isinstance(strategy, Zero3OffloadConfig):
        _offload_zero(strategy, states)
    elif isinstance(strategy, FSDP2Config) and strategy.offload:
        states.host, states.loading = states.weights + states.gradients + states.optimizer, 0.0
        states.weights = states.gradients = states.optimizer = 0.0
    return states


def _whole(shapes: Shapes, ranks: int, micro_batches: int, product: int, moments: float) -> States:
    """single and ddp: every rank holds all of it."""
    trained = shapes.trained
    weights, gradients = MASTER * trained + shapes.frozen_bytes(product), MASTER * trained
    several = ranks > 1 and micro_batches > 1  # gradients add up outside of the buckets, until the last micro-batch
    return States(
        weights=weights,
        gradients=gradients,
        layers=gradients * several,
        end=MASTER * shapes.largest_trained * several,
        whole_gradients=ranks == 1 and micro_batches == 1,
        optimizer=moments * trained,
        loading=weights + BLOCK,
        saving=weights + moments * trained,
        sent=2 * _others(ranks) * gradients,
    )


def _fsdp2(
    config: FSDP2Config, shapes: Shapes, ranks: int, micro_batches: int, product: int, moments: float
) -> States:  # fmt: skip
    shards = min(config.shard_size or ranks, ranks)
    rows = [(-(-part.shape[0] // shards) * prod(part.shape[1:]), part) for part in shapes.parts]
    trained = sum(count for count, part in rows if part.trained)
    weights = MASTER * trained + sum(count * (part.kept or product) for count, part in rows if not part.trained)
    units, outside = shapes.of_units(), shapes.outside
    largest, layer = units[0], units[min(1, len(units) - 1)]
    held = 2 * product * outside  # gathered, and its gradient, from the first layer to the last
    reduced = MASTER + product  # a gradient as it is made, and as it is reduced
    gathered = 2 + config.prefetch_layers  # the layer, its copy in the buffer that was received, those to come
    layers = sum(units) * product + layer * (product + reduced) if not config.reshard_after_forward else (
        layer * (product * gathered + reduced)
    )  # fmt: skip
    per_micro_batch = (
        _others(shards) * (product * shapes.read * (2 if config.reshard_after_forward else 1) + MASTER * shapes.trained)
        + 2 * _others(ranks // shards) * MASTER * shapes.trained / shards
    )
    return States(
        weights=weights,
        gradients=MASTER * trained,
        optimizer=moments * trained,
        layers=held + layers,
        end=held + largest * (2 * product + MASTER),
        loading=weights + BLOCK,
        saving=weights + moments * trained,
        sent=micro_batches * per_micro_batch,
    )


def _zero(
    config: ZeroConfig, shapes: Shapes, ranks: int, micro_batches: int, product: int, moments: float
) -> States:  # fmt: skip
    """Stages 1 and 2: forward's weights are whole, float32 weights and moments divided."""
    trained, share = shapes.trained, shapes.trained / ranks
    elements = int(config.reduce_bucket_mb * MB / MASTER)
    largest = shapes.largest_trained
    second = isinstance(config, Zero2Config)
    weights = product * trained + shapes.frozen_bytes(product)
    optimizer = (MASTER + moments) * share
    separate = product != MASTER  # float32 sums beside gradients in bf16
    if separate and second:
        gradients = MASTER * share
    elif separate:  # as they are made, and their float32 sums, whole
        gradients = (product + MASTER) * float(trained)
    else:  # whole parameters of which a part is this rank's keep their gradient
        gradients = MASTER * (share + largest * _others(ranks))
    on_the_way = product * elements * (1 + config.overlap_comm) if second or not separate else 0.0
    large = MASTER * largest if largest > elements else 0.0  # goes alone, past the bucket
    rounds = micro_batches if second else 1
    return States(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        layers=on_the_way,
        end=on_the_way + large * separate,
        step=MASTER * share,
        loading=max(weights + product * trained, weights + optimizer + gradients * (isinstance(config, Zero1Config))),
        saving=optimizer + shapes.frozen_bytes(product),
        sent=_others(ranks) * (rounds * MASTER * trained + product * trained),
    )


def _zero3(
    config: Zero3Config, shapes: Shapes, ranks: int, micro_batches: int, product: int, moments: float
) -> States:  # fmt: skip
    small = int(config.persistence_kb * 1000 / product)
    chunks = [(-(-part.numel // ranks), part) for part in shapes.parts]
    kept = sum(part.numel for part in shapes.parts if part.numel < small)  # whole on every rank
    trained = sum(chunk for chunk, part in chunks if part.trained)
    frozen = sum(chunk * (part.kept or product) for chunk, part in chunks if not part.trained)
    weights = product * (trained + kept) + frozen
    bucket = MASTER * int(config.reduce_bucket_mb * MB / MASTER)
    units = shapes.of_units()
    largest, layer = units[0], units[min(1, len(units) - 1)]
    whole = product * shapes.read
    live = min(whole, max(config.max_live_mb * MB, product * layer + config.prefetch_mb * MB))
    optimizer = (MASTER + moments) * trained
    return States(
        weights=weights,
        gradients=MASTER * trained,
        optimizer=optimizer,
        buffers=bucket,
        layers=min(live, whole - product * kept) + product * layer,
        end=max(live, product * largest) + (MASTER * largest if MASTER * largest > bucket else 0.0),
        step=MASTER * min(trained, SUB_GROUP),
        loading=max(weights + product * largest, weights + optimizer + MASTER * trained + bucket),
        saving=optimizer + frozen,
        sent=micro_batches * _others(ranks) * (2 * product * shapes.read + MASTER * shapes.trained),
    )


def _offload_zero(config: Zero3OffloadConfig, states: States) -> None:
    """Move to host memory, or to a disk, what the strategy keeps there."""
    moved = states.optimizer + states.gradients
    if isinstance(config, Zero3NvmeConfig):
        states.disk = moved
        states.host = min(moved, 4 * config.sub_group_mb * MB) + states.gradients
    else:
        states.host = moved + states.gradients  # DeepSpeed has a second copy of the gradients for the update
    states.loading -= moved
    states.optimizer = states.gradients = states.step = 0.0
    if config.offload_parameters:
        states.host += states.weights
        states.loading -= states.weights
        states.weights = 0.0
    states.loading = max(states.loading, states.buffers)


def _others(ranks: int) -> float:
    """Return the share that a rank sends of what all ranks are to have."""
    return (ranks - 1) / ranks
