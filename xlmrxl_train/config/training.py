"""How it learns: optimizer, learning rate, loop."""

from dataclasses import dataclass
from typing import Literal

from xlmrxl_train.config.keys import key


@dataclass(kw_only=True, slots=True)
class OptimizerConfig:
    """How gradients move weights."""

    name: str = key(
        "adamw",
        "adamw | adamw_8bit; adamw: fused; adamw_8bit: torchao's, moments of matrices in a byte per element, with "
        "strategy=single, ddp or fsdp2",
    )
    lr: float = key(1e-5, "peak learning rate")
    betas: list[float] = key([0.9, 0.98], "decay of the two moments")
    eps: float = key(1e-6, "added to the root of the second moment")
    weight_decay: float = key(0.1, "not on biases, norms and embeddings")
    head_lr: float | None = key(None, "peak learning rate of what stands above the encoder; null: lr")
    layer_decay: float = key(1.0, "layer i of n has lr * layer_decay^(n - i), the embeddings the power n + 1")
    unfreeze_after: float = key(0.0, "epochs, or a part of one, in which only what stands above the encoder moves")
    unfreeze_every: float | None = key(
        None, "epochs between one layer and the next below it, from unfreeze_after on; null: all at once"
    )


@dataclass(kw_only=True, slots=True)
class ScheduleConfig:
    """The learning rate as a function of the step and of nothing else."""

    name: str = key("linear", "linear | cosine | constant, after warm-up")
    warmup: float = key(0.06, "below 1: share of all steps; from 1: optimizer steps")
    final: float = key(0.0, "share of the peak rate at the end; linear and cosine go down to it")


@dataclass(kw_only=True, slots=True)
class GuardConfig:
    """What looks for training that fails."""

    name: str = key(
        "warn",
        "off | warn | act; warn: a line and an event when the loss stands at chance or jumps, predictions are all the "
        "same, gradients explode or die, or a step changes no weight; act: also go back to a checkpoint from before, "
        "and on with half the rate, or, after a jump of the loss, past the examples there. It writes checkpoints for "
        "that, whatever train.checkpoint_every says: before the first step, and then each 20th of the run, or each "
        "guard.window steps if that is longer; until the run ends, the first and the last two of them stay",
    )
    window: int = key(
        100, "optimizer steps that the last ones are compared with, and over which at least chance is seen"
    )
    max_actions: int = key(5, "act: times that it goes back; after them it only warns")


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """The loop."""

    languages: list[str] = key(
        ["en"], "languages to train on; [all]: every language of the data set; []: on shots alone"
    )
    shots: int = key(0, "few-shot: labelled examples to train on in each of shot_languages, drawn by the seed")
    shot_languages: list[str] = key(
        [], "of the evaluated data set; empty: the evaluated languages that are not trained on in whole"
    )
    shot_split: str = key(
        "auto",
        "auto | train | validation, what shots are drawn from; auto: the training split where the language has one; "
        "shots from validation are left out of it when it is scored, in every language",
    )
    sampling_temperature: float = key(
        1.0,
        "T: of n examples in a data set and language, an epoch has a share by n^(1/T); 1: each once; above 1: those of "
        "small tables again and again, of large ones a part; XLM-R's alpha is 1/T, 0.3 there",
    )
    epochs: float = key(3.0, "passes over the training data")
    max_steps: int | None = key(None, "optimizer steps; null: as many as train.epochs needs")
    batch_size: int = key(32, "examples per optimizer step, over all ranks")
    tokens_per_micro_batch: int | Literal["auto"] = key(
        8192, "tokens that one rank holds at a time; a step is cut into as many as needed; auto: as many as fit"
    )
    precision: str = key("bf16", "bf16 | fp32; bf16: matrix products only, the rest float32")
    matmul: str = key(
        "bf16",
        "bf16 | fp8; fp8: factors of the layers' products in training, by torchao, on GPUs that have it; each is "
        "scaled by its largest value in a micro-batch, so results depend on the cut",
    )
    recompute: str = key(
        "none",
        "none | full | every_<n> | selective | auto; full: keep no activations, run each layer twice; every_2: every "
        "second layer; selective: keep matrix products, compute the rest twice; auto: as few layers as fit",
    )
    compile: bool = key(
        False,
        "torch.compile each layer but for attention itself in training: rounds otherwise, compiles at the first step",
    )
    max_grad_norm: float = key(1.0, "gradients are scaled down to this norm; 0: never")
    checkpoint_every: int | None = key(None, "optimizer steps; null: only at the end")
    checkpoint_in_background: bool = key(
        True, "train on while a checkpoint is written from a copy in host memory; where that has no room, train waits"
    )
    keep_checkpoints: int = key(1, "how many of the latest checkpoints stay")
    max_skipped: int = key(
        10,
        "steps in a row with a loss or gradient that is not finite, after which the run ends (guard=act goes back)",
    )
    patience: int | None = key(
        None,
        "early stopping: looks at the validation split in a row without a better selection score, after which training "
        "ends; null: never",
    )
    min_delta: float = key(0.0, "early stopping: better is better by more than this, as metrics.jsonl writes the score")
    max_hours: float | None = key(None, "save and stop after this time; null: never")
    log_every: int = key(10, "optimizer steps between lines of metrics.jsonl and of the console")
    save_model: bool = key(True, "write the final weights to <run>/model")
    profile: bool = key(False, "time the phases of a step, trace a few steps; written to <run>/profile")
