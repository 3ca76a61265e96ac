"""How a model is spread over processes."""

from dataclasses import dataclass
from typing import Any

from xlmrxl_train.config.keys import key


@dataclass(kw_only=True, slots=True)
class StrategyConfig:
    """How one model is spread over processes; each strategy has its own class below."""

    name: str = key(
        "auto", "set by the choice of strategy; auto: single, or ddp where a launcher started several ranks"
    )
    device: str = key("auto", "auto | cpu | cuda; auto: cuda where there is one")
    timeout_minutes: float = key(30.0, "a collective that takes longer ends the job")
    watchdog_minutes: float | None = key(
        10.0,
        "when no rank moves for so long, each says where it is and the job ends; at most half of timeout_minutes; "
        "null or 0: never",
    )


@dataclass(kw_only=True, slots=True)
class SingleConfig(StrategyConfig):
    """One process."""

    name: str = key("single", "set by the choice of strategy")


@dataclass(kw_only=True, slots=True)
class DDPConfig(StrategyConfig):
    """A whole copy of the model in every process, gradients averaged."""

    name: str = key("ddp", "set by the choice of strategy")
    bucket_mb: float = key(25.0, "megabytes of gradients reduced together")


@dataclass(kw_only=True, slots=True)
class FSDP2Config(StrategyConfig):
    """Rows of every parameter, gradient and moment divided over the ranks by torch."""

    name: str = key("fsdp2", "set by the choice of strategy")
    shard_size: int | None = key(
        None, "ranks that share one model, each group of them holding a whole one, as the GPUs of a machine; null: all"
    )
    reshard_after_forward: bool = key(True, "let go of a layer between forward and backward; false: ZeRO-2's memory")
    prefetch_layers: int = key(1, "layers that are gathered while one runs")
    offload: bool = key(False, "keep parameters, gradients and moments in host memory; the optimizer runs there")
    pin_memory: bool = key(True, "offload: page-locked host memory, which copies faster and cannot be swapped")


@dataclass(kw_only=True, slots=True)
class ZeroConfig(StrategyConfig):
    """What the stages of DeepSpeed's ZeRO have in common."""

    reduce_bucket_mb: float = key(500.0, "megabytes of gradients (float32) reduced together")
    allgather_bucket_mb: float = key(500.0, "megabytes of parameters gathered together; stages 1 and 2")
    overlap_comm: bool = key(True, "reduce gradients while backward goes on")
    deepspeed: dict[str, Any] = key(
        {},
        "any other key of DeepSpeed, nested as there: {zero_optimization: {round_robin_gradients: true}}",
    )


@dataclass(kw_only=True, slots=True)
class Zero1Config(ZeroConfig):
    """Moments and float32 weights divided over the ranks."""

    name: str = key("zero1", "set by the choice of strategy")


@dataclass(kw_only=True, slots=True)
class Zero2Config(ZeroConfig):
    """Gradients divided too."""

    name: str = key("zero2", "set by the choice of strategy")


@dataclass(kw_only=True, slots=True)
class Zero3Config(ZeroConfig):
    """Parameters divided too."""

    name: str = key("zero3", "set by the choice of strategy")
    prefetch_mb: float = key(100.0, "megabytes of parameters gathered ahead of their use")
    persistence_kb: float = key(200.0, "parameters up to this size stay whole on every rank")
    max_live_mb: float = key(2000.0, "megabytes of gathered parameters at a time")
    max_reuse_distance_mb: float = key(2000.0, "keep a parameter that is used again within so many megabytes")
    hierarchical_size: int = key(
        1, "ZeRO++: ranks that share a second copy of the parameters, as the GPUs of a machine; 1: none"
    )
    quantized_weights: bool = key(False, "ZeRO++: gather parameters in int8; changes results")
    quantized_gradients: bool = key(False, "ZeRO++: reduce gradients in int4; changes results")


@dataclass(kw_only=True, slots=True)
class Zero3OffloadConfig(Zero3Config):
    """ZeRO-3 with parameters, moments and the optimizer's work in host memory."""

    name: str = key("zero3_offload", "set by the choice of strategy")
    offload_parameters: bool = key(True, "false: moments and float32 weights only")
    pin_memory: bool = key(True, "page-locked host memory, which copies faster and cannot be swapped")


@dataclass(kw_only=True, slots=True)
class Zero3NvmeConfig(Zero3OffloadConfig):
    """ZeRO-3 with moments and float32 weights on a local disk."""

    name: str = key("zero3_nvme", "set by the choice of strategy")
    nvme_path: str | None = key(None, "folder on a fast local disk, for one run alone; must be given")
    sub_group_mb: float = key(
        1000.0, "megabytes of float32 weights read, moved and written together; 4 times as much memory is page-locked"
    )
    offload_parameters: bool = key(False, "parameters in host memory; false: on the device")


# What a choice of this group selects.
STRATEGY_CLASSES: dict[str, type] = {
    "auto": StrategyConfig,
    "single": SingleConfig,
    "ddp": DDPConfig,
    "fsdp2": FSDP2Config,
    "zero1": Zero1Config,
    "zero2": Zero2Config,
    "zero3": Zero3Config,
    "zero3_offload": Zero3OffloadConfig,
    "zero3_nvme": Zero3NvmeConfig,
}
