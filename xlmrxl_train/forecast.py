"""Plans a run: from its configuration alone, as `xlmrxl plan` does, or with its data and device, as it begins.

Weights, tokenizer and data are looked at where they are on this machine; nothing is fetched. The configured shape, the
sample's tokenizer and stated lengths stand in for what is not.
"""

import json
import statistics
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from xlmrxl_train.checks import check as check_config
from xlmrxl_train.config import Config, SingleConfig, TrainConfig
from xlmrxl_train.data.cache_folder import cache_folder
from xlmrxl_train.data.corpus import Corpus, Part, open_corpus
from xlmrxl_train.data.examples import Row
from xlmrxl_train.data.sources import open_source
from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.errors import ConfigError, UserError
from xlmrxl_train.hub import TOKENIZER_FILES, at_hand, has_weights
from xlmrxl_train.model import PreTrained
from xlmrxl_train.model.source import ParameterSource
from xlmrxl_train.outline import plain_model
from xlmrxl_train.plan.checking import check_memory
from xlmrxl_train.plan.hardware import Hardware, parse_hardware
from xlmrxl_train.plan.inputs import inputs_of
from xlmrxl_train.plan.planning import EFFICIENCY, Plan, Planner, plan_on, with_recompute
from xlmrxl_train.plan.workload import XNLI_EXAMPLES, Workload, sampled, stated
from xlmrxl_train.session import SAMPLE_TOKENIZER, Session, build_model, open_tokenizer
from xlmrxl_train.tasks import Task, make_task
from xlmrxl_train.track.environment import environment
from xlmrxl_train.training.folder import RunFolder
from xlmrxl_train.training.tuning import tune
from xlmrxl_train.training.vocabulary import check_embeddings, freeze_embeddings, frozen_dtypes, train_rows
from xlmrxl_train.training_sets import open_training_sets


def plan(config: Config) -> Plan:
    """Return what a run of this configuration would need on `plan.hardware`.

    Raises:
        ConfigError: The configuration is wrong, or nothing tells how large the model is.
    """
    check_config(config)
    hardware = parse_hardware(config.plan.hardware, config.plan.nodes, config.strategy.device)
    if isinstance(config.strategy, SingleConfig) and hardware.ranks > 1:
        raise ConfigError(f"strategy=single runs in one process, plan.hardware has {hardware.ranks}. Use strategy=ddp.")
    tokenizer, known = _tokenizer(config)
    task = make_task(config.task, config.dataset, tokenizer)
    if not task.trains:
        raise ConfigError(
            f"task={config.task.kind} trains nothing, so there is nothing to plan. Choose another recipe."
        )
    check_embeddings(config, task)
    folder = at_hand(config.model.path, config.model.revision, ("config.json",)) if config.model.path else None
    if config.model.path and folder is None and not config.model.hidden_size:
        raise ConfigError(
            f"model.path={config.model.path} must be on this machine, or its shape be given, to plan for it. Fetch it "
            "first, or set model.hidden_size, model.num_hidden_layers, model.num_attention_heads, "
            "model.intermediate_size and model.vocab_size."
        )
    outline = plain_model(config, task, len(tokenizer), folder)
    source = tune(outline, outline.source(folder if folder and has_weights(folder) else None, 0), config.tuning)
    corpus = _tokenised(config, task, tokenizer) if known else None
    words = _divide_embedding(config, task, corpus, outline, source)
    planner = Planner(
        config=config,
        hardware=hardware,
        workload=_stated(config) if corpus is None else sampled(corpus),
        outline=outline,
        kept=frozen_dtypes(config, outline, source),
        inputs=inputs_of(task),
        words=words,
        efficiency=_efficiency(config, hardware),
    )
    if config.train.recompute == "auto" or config.train.tokens_per_micro_batch == "auto":
        planner = _settled(planner)
    return planner.plan()


def settle(session: Session, train: Corpus) -> list[str]:
    """Make sure that a run fits, and put values in place of the keys that are `auto`, the same on every rank.

    Returns:
        What people should know.

    Raises:
        ConfigError: It does not fit the first rank's device.
    """
    config, settings = session.config, session.config.train

    def look() -> tuple[Any, str, list[str]]:
        outline, source = build_model(_uncompiled(config), session.task, session.tokenizer)
        freeze_embeddings(config, session.task, train, outline, source)
        kept, inputs = frozen_dtypes(config, outline, source), inputs_of(session.task)

        def planner() -> Planner:
            return plan_on(session.world, config, outline, inputs, sampled(train), kept)

        said = check_memory(session.world, config, outline, training=True, kept=kept, planner=planner)
        if settings.recompute != "auto" and settings.tokens_per_micro_batch != "auto":
            return settings.tokens_per_micro_batch, settings.recompute, [said] if said else []
        chosen = _settled(planner()).config.train
        tokens, recompute = chosen.tokens_per_micro_batch, chosen.recompute
        return tokens, recompute, [f"auto    train.tokens_per_micro_batch={tokens} train.recompute={recompute}"]

    settings.tokens_per_micro_batch, settings.recompute, said = session.world.first(look)
    return said


def _uncompiled(config: Config) -> Config:
    """Return the configuration with layers as they are written: planning runs them on tensors without memory."""
    plain = deepcopy(config)
    plain.train.compile, plain.train.matmul = False, TrainConfig().matmul
    return plain


def _divide_embedding(
    config: Config, task: Task, train: Corpus | None, outline: PreTrained, source: ParameterSource
) -> str:  # fmt: skip
    """Freeze what `model.embeddings` says, with a usual share of rows where the training set is not here."""
    unknown = (
        train is None
        and config.tuning.name == "full"
        and config.model.embeddings in ("auto", "active")
        and not task.trains_all_words
    )
    if not unknown:
        nothing = Corpus(split="train", languages=[], tables=[])  # not looked at where all rows, or none, are trained
        return freeze_embeddings(config, task, train or nothing, outline, source) or _rows_of(config)
    rows = outline.config.vocab_size
    train_rows(outline, source, torch.arange(max(1, int(ROWS * rows))))
    return f"{ROWS:.0%} of {rows:,} rows taken to be in the training set; its own count decides"


def _settled(planner: Planner) -> Planner:
    """Return a planner whose configuration has numbers in place of `auto`."""
    config = deepcopy(planner.config)
    settings = config.train
    if settings.recompute == "auto":
        settings.recompute = planner.least_recompute()
    if settings.tokens_per_micro_batch == "auto":
        settings.tokens_per_micro_batch = with_recompute(planner, settings.recompute).best_budget()
    return with_recompute(planner, settings.recompute, settings.tokens_per_micro_batch)


def _tokenizer(config: Config) -> tuple[Tokenizer, bool]:
    """Return the run's tokenizer if it is on this machine, else the sample's, and whether it is the run's."""
    path = config.tokenizer.path or config.model.path
    revision = config.tokenizer.revision or (None if config.tokenizer.path else config.model.revision)
    local = Path(path).is_file() if path else False
    if path and not local and at_hand(path, revision, TOKENIZER_FILES) is None:
        return Tokenizer.from_path(SAMPLE_TOKENIZER), False
    return open_tokenizer(config), True


ROWS = 0.15  # of the embedding that a training set in one language contains, as a rule


class _NotThereError(Exception):
    """Rows would have to be read and tokenised."""


def _rows_of(config: Config) -> str:
    return "all rows are trained" if config.tuning.name == "full" else f"no row is trained: tuning={config.tuning.name}"


def _tokenised(config: Config, task: Task, tokenizer: Tokenizer) -> Corpus | None:
    """Return the training set if it was tokenised before, on this machine."""

    def no_rows(part: Part) -> Iterator[Row]:
        raise _NotThereError

    try:
        sets = open_training_sets(config, open_source(config.dataset, config.data), task)
        parts = [
            Part(split="train", language=code, source=item.source, encoder=item.task, dataset=item.key)
            for item in sets
            for code in item.languages
        ]
        return open_corpus(
            "train", parts, tokenizer.fingerprint, rows=no_rows, limit=config.data.limit,
            cache=cache_folder(config.data),
        )  # fmt: skip
    except (_NotThereError, UserError):
        return None


def _stated(config: Config) -> Workload:
    xnli = config.dataset.name == "XNLI" and config.data.limit is None
    total = config.plan.examples or (XNLI_EXAMPLES * len(config.train.languages) if xnli else None)
    return stated(config.plan.length, config.task.max_length, total)


def _efficiency(config: Config, hardware: Hardware) -> tuple[float, str]:
    """Return the share of the matrix peak that is reached: as stated, as this hardware's last run did, or assumed."""
    if config.plan.efficiency is not None:
        return config.plan.efficiency, "plan.efficiency"
    here = environment()
    root = Path(config.run.dir).parent.parent
    files = sorted(root.glob("*/*/metrics.jsonl"), key=lambda file: -file.stat().st_mtime)
    for file in files[:20]:
        if (found := _reached(file, hardware, here, config.model.hidden_size)) is not None:
            return found, f"as {file.parent} reached"
    return EFFICIENCY, "assumed"


def _reached(file: Path, hardware: Hardware, here: dict[str, Any], width: int | None) -> float | None:
    """Return the share of the peak that a run of this width reached on this hardware; None: it was not such a run."""
    try:
        ran_on = json.loads((file.parent / "environment.json").read_text(encoding="utf-8"))
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        config = RunFolder(file.parent).read_config()
    except (OSError, ValueError, UserError):  # a run that is being written, or of another version
        return None
    rates = [line["tokens_per_second"] for line in lines if line.get("event") == "train"]
    model = config.model
    if not rates or not (model.hidden_size and model.num_hidden_layers and model.intermediate_size):
        return None
    if model.hidden_size != width:  # a narrow model reaches another share
        return None
    if hardware.is_cpu:
        same = not ran_on.get("gpus") and ran_on.get("cpu", {}).get("model") == here["cpu"]["model"]
    else:
        family = hardware.accelerator.name.partition("-")[0].removeprefix("NVIDIA ")
        same = any(family in name for name in ran_on.get("gpus", []))
    if not same:
        return None
    weights = model.num_hidden_layers * (4 * model.hidden_size**2 + 2 * model.hidden_size * model.intermediate_size)
    flops = 6.0 * weights * statistics.median(rates)
    ranks = ran_on.get("world_size", 1)
    peak = hardware.accelerator.bf16 if config.train.precision == "bf16" else hardware.accelerator.fp32
    return float(min(1.0, flops / (peak * (1 if hardware.is_cpu else ranks))))
