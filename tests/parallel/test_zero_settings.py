"""Our settings in DeepSpeed's terms, what is passed through, and what is refused."""

import pytest

from xlmrxl_train import load_config
from xlmrxl_train.config import Zero1Config, Zero2Config, Zero3Config, Zero3NvmeConfig, Zero3OffloadConfig
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.parallel.zero_settings import deepspeed_settings


def settings(config, precision: str = "bf16", *, recompute: bool = False) -> dict:
    return deepspeed_settings(config, precision, 1.0, recompute=recompute)


@pytest.mark.parametrize(("kind", "stage"), [(Zero1Config, 1), (Zero2Config, 2), (Zero3Config, 3)])
def test_deepspeed_itself_accepts_the_settings(kind: type, stage: int) -> None:
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    values = settings(kind())
    assert DeepSpeedZeroConfig(**values["zero_optimization"]).stage == stage
    assert values["bf16"] == {"enabled": True}
    assert values["gradient_clipping"] == 1.0


def test_megabytes_become_elements_of_what_is_moved() -> None:
    config = Zero3Config(reduce_bucket_mb=400, prefetch_mb=10, persistence_kb=6, max_live_mb=0)
    for precision, width in (("bf16", 2), ("fp32", 4)):
        zero = settings(config, precision)["zero_optimization"]
        assert zero["reduce_bucket_size"] == 100_000_000  # gradients are float32 in both
        assert zero["stage3_prefetch_bucket_size"] == 10_000_000 // width
        assert zero["stage3_param_persistence_threshold"] == 6_000 // width
        assert zero["stage3_max_live_parameters"] == 0


def test_places_of_offloaded_tensors() -> None:
    def places(config) -> list:
        zero = settings(config)["zero_optimization"]
        return [zero.get(f"offload_{what}", {}).get("device") for what in ("optimizer", "param")]

    assert places(Zero3Config()) == [None, None]
    assert places(Zero3OffloadConfig()) == ["cpu", "cpu"]
    assert places(Zero3OffloadConfig(offload_parameters=False)) == ["cpu", None]
    assert places(Zero3NvmeConfig(nvme_path="/fast")) == ["nvme", None]
    assert places(Zero3NvmeConfig(nvme_path="/fast", offload_parameters=True)) == ["nvme", "cpu"]


def test_its_linear_function_is_left_out_where_layers_are_recomputed() -> None:
    assert settings(Zero3Config())["zero_optimization"]["memory_efficient_linear"] is True
    assert settings(Zero3Config(), recompute=True)["zero_optimization"]["memory_efficient_linear"] is False


def test_keys_of_deepspeed_pass_through_the_command_line() -> None:
    words = [
        "strategy=zero2",
        "strategy.deepspeed={zero_optimization:{round_robin_gradients:true},prescale_gradients:true}",
    ]
    values = settings(load_config(["recipe=demo", *words]).strategy)
    assert values["zero_optimization"]["round_robin_gradients"] is True
    assert values["zero_optimization"]["stage"] == 2
    assert values["prescale_gradients"] is True


def test_unknown_keys_and_keys_of_the_loop_are_refused_together() -> None:
    given = {"gradient_clippin": 1, "bf16": {}, "zero_optimization": {"stage": 1, "reduce_bucket_sise": 5}}
    with pytest.raises(ConfigError) as caught:
        settings(Zero2Config(deepspeed=given))
    by_loop = "is set by this program. Leave it out; see `strategy` and `train` in --help."
    unknown = "is no key of DeepSpeed's configuration. Did you mean"
    assert caught.value.faults == (
        f"strategy.deepspeed.bf16 {by_loop}",
        f"strategy.deepspeed.zero_optimization.stage {by_loop}",
        f"strategy.deepspeed.gradient_clippin {unknown} gradient_clipping?",
        f"strategy.deepspeed.zero_optimization.reduce_bucket_sise {unknown} zero_optimization.reduce_bucket_size?",
    )
