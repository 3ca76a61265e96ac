"""What of a model learns."""

from dataclasses import dataclass

from xlmrxl_train.config.keys import key


@dataclass(kw_only=True, slots=True)
class TuningConfig:
    """Which parameters learn; each choice has its own class below. The task's head always does."""

    name: str = key("full", "set by the choice of tuning")
    suggested_lr: float = key(1e-5, "peak learning rate that suits it; optimizer.lr is this unless it is set")


@dataclass(kw_only=True, slots=True)
class BiasTuningConfig(TuningConfig):
    """The biases of layers and norms (BitFit)."""

    name: str = key("bias", "set by the choice of tuning")


@dataclass(kw_only=True, slots=True)
class HeadTuningConfig(TuningConfig):
    """The head alone."""

    name: str = key("head", "set by the choice of tuning")


@dataclass(kw_only=True, slots=True)
class LastLayersTuningConfig(TuningConfig):
    """The last layers and the norm after them."""

    name: str = key("last_layers", "set by the choice of tuning")
    layers: int = key(4, "how many")


@dataclass(kw_only=True, slots=True)
class LoraTuningConfig(TuningConfig):
    """A product of two small matrices added to each large one (LoRA)."""

    name: str = key("lora", "set by the choice of tuning")
    rank: int = key(16, "columns and rows of the small matrices")
    alpha: int = key(32, "their product is scaled by alpha / rank; under rslora by alpha / sqrt(rank)")
    dropout: float = key(0.05, "on what the small matrices read")
    targets: list[str] = key(
        ["query", "key", "value", "attention_output", "intermediate", "output"],
        "matrices of every layer that get one: query | key | value | attention_output | intermediate | output",
    )
    weights: str | None = key(
        None, "null | int8 | nf4: how the matrices below are held, which do not learn; null: in train.precision"
    )
    merge: bool = key(
        True,
        "write <run>/model, the whole model with the products added; false: <run>/adapter alone, some megabytes, which "
        "every command reads together with model.path",
    )


@dataclass(kw_only=True, slots=True)
class DoraTuningConfig(LoraTuningConfig):
    """LoRA, and a learned length of every row (DoRA)."""

    name: str = key("dora", "set by the choice of tuning")


@dataclass(kw_only=True, slots=True)
class RsloraTuningConfig(LoraTuningConfig):
    """LoRA whose scale suits any rank (rank-stabilised)."""

    name: str = key("rslora", "set by the choice of tuning")
    alpha: int = key(8, "the product is scaled by alpha / sqrt(rank)")


# What a choice of this group selects.
TUNING_CLASSES: dict[str, type] = {
    "full": TuningConfig,
    "lora": LoraTuningConfig,
    "dora": DoraTuningConfig,
    "rslora": RsloraTuningConfig,
    "bias": BiasTuningConfig,
    "head": HeadTuningConfig,
    "last_layers": LastLayersTuningConfig,
}
