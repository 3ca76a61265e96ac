"""Our typed settings in DeepSpeed's terms, and what a user passes through to it."""

from typing import Any

from xlmrxl_train.config import Zero1Config, Zero2Config, Zero3Config, Zero3NvmeConfig, Zero3OffloadConfig, ZeroConfig
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.spelling import did_you_mean

MB = 1_000_000
STAGES = {Zero1Config: 1, Zero2Config: 2}
# What the training loop owns: another value would be another run than the configuration says.
OURS = (
    "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping",
    "optimizer", "scheduler", "fp16", "bf16", "data_types", "torch_autocast", "zero_optimization.stage",
    "zero_optimization.offload_param", "zero_optimization.offload_optimizer",
)  # fmt: skip


def deepspeed_settings(config: ZeroConfig, precision: str, max_grad_norm: float, *, recompute: bool) -> dict[str, Any]:
    """Return the configuration that `deepspeed.initialize` gets.

    Raises:
        ConfigError: A key of `strategy.deepspeed` does not exist, or is one that the training loop sets itself.
    """
    check_passed_through(config.deepspeed)
    bytes_per_parameter = 2 if precision == "bf16" else 4
    zero: dict[str, Any] = {
        "stage": STAGES.get(type(config), 3),
        "overlap_comm": config.overlap_comm,
        "contiguous_gradients": True,
        "reduce_bucket_size": _elements(config.reduce_bucket_mb, 4),
        "allgather_bucket_size": _elements(config.allgather_bucket_mb, bytes_per_parameter),
    }
    if isinstance(config, Zero3Config):
        zero |= {
            "stage3_prefetch_bucket_size": _elements(config.prefetch_mb, bytes_per_parameter),
            "stage3_param_persistence_threshold": _elements(config.persistence_kb / 1000, bytes_per_parameter),
            "stage3_max_live_parameters": _elements(config.max_live_mb, bytes_per_parameter),
            "stage3_max_reuse_distance": _elements(config.max_reuse_distance_mb, bytes_per_parameter),
            "zero_hpz_partition_size": config.hierarchical_size,
            "zero_quantized_weights": config.quantized_weights,
            "zero_quantized_gradients": config.quantized_gradients,
            # Its linear function keeps no gathered weight for backward. Recomputation keeps none either, and the
            # function replaces torch's for the whole process.
            "memory_efficient_linear": not recompute,
        }
    if isinstance(config, Zero3OffloadConfig):
        host = {"device": "cpu", "pin_memory": config.pin_memory}
        zero["offload_optimizer"] = host
        if isinstance(config, Zero3NvmeConfig):
            zero["offload_optimizer"] = host | {"device": "nvme", "nvme_path": config.nvme_path}
            zero["sub_group_size"] = _elements(config.sub_group_mb, 4)
        if config.offload_parameters:
            zero["offload_param"] = host
    settings = {
        # The loop's own: one optimizer step per call of step(), micro-batches are told apart by `last`.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": max_grad_norm,
        "bf16": {"enabled": precision == "bf16"},
        # Both are needed for gradients that are added up and reduced in float32 at every stage.
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1 << 60,
        "zero_optimization": zero,
    }
    return merge(settings, config.deepspeed)


def _elements(megabytes: float, bytes_each: int) -> int:
    return int(megabytes * MB / bytes_each)


def merge(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `more`, section by section."""
    result = dict(base)
    for name, value in more.items():
        both = isinstance(value, dict) and isinstance(base.get(name), dict)
        result[name] = merge(base[name], value) if both else value
    return result


def check_passed_through(values: dict[str, Any]) -> None:
    """Make sure that DeepSpeed knows every key, since it ignores one that it does not.

    Raises:
        ConfigError: All that it does not know, each with the nearest that it does.
    """
    known = known_keys()
    given = [*values, *(f"zero_optimization.{name}" for name in values.get("zero_optimization", {}))]
    faults = [
        f"strategy.deepspeed.{name} is set by this program. Leave it out; see `strategy` and `train` in --help."
        for name in given
        if name in OURS
    ]
    faults += [
        f"strategy.deepspeed.{name} is no key of DeepSpeed's configuration. "
        f"{did_you_mean(name, known, 'Leave it out.')}"
        for name in given
        if name not in known and name not in OURS
    ]
    if faults:
        raise ConfigError(*faults)


def known_keys() -> set[str]:
    """Return the names of DeepSpeed's configuration, those of zero_optimization with that in front."""
    from deepspeed.runtime import constants
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    top = {value for value in vars(constants).values() if isinstance(value, str) and value.isidentifier()}
    fields = DeepSpeedZeroConfig.model_fields.items()
    inner = {name for name, _ in fields} | {field.alias for _, field in fields if field.alias}
    return top | {"zero_optimization"} | {f"zero_optimization.{name}" for name in inner}
