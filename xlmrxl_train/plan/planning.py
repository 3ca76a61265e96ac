"""Adds up what a run needs, says whether it fits, and finds what would."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from typing import Any

import torch
from torch import nn

from xlmrxl_train.config import VARIANTS, Config, FSDP2Config, lengths_of
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.model import XLMRobertaXLLayer
from xlmrxl_train.model.encoder import XLMRobertaXLEncoder
from xlmrxl_train.parallel import World
from xlmrxl_train.plan.footprint import Footprint, Setting, footprint
from xlmrxl_train.plan.hardware import Hardware, this_machine
from xlmrxl_train.plan.inputs import Inputs
from xlmrxl_train.plan.states import Shapes, States, is_divided, states_of
from xlmrxl_train.plan.workload import Workload
from xlmrxl_train.spelling import gigabytes

ANCHORS = (1024, 8192)  # tokens of the micro-batches that are looked at; the same mixture of lengths, so all is linear
STEP_OF_BUDGET = 256  # tokens: budgets that are found are multiples of it
MOST_TOKENS = 65_536  # a larger micro-batch is no faster
CPU_TOKENS = 8192  # likewise on a CPU
LEAST_TOKENS = 2048  # with fewer a GPU mostly waits: then computing twice costs less than cutting a step again
EFFICIENCY = 0.4  # of the matrix peak, where nothing better is known


@dataclass(kw_only=True, slots=True)
class Plan:
    """What a run needs, on each rank where nothing else is said; bytes, tokens, seconds."""

    hardware: str
    ranks: int
    strategy: str
    precision: str
    recompute: str
    parameters: int
    trained: int
    tokens_per_micro_batch: int  # the setting
    tokens: int  # of the fullest micro-batch that steps of this batch size make
    micro_batches: int
    lengths: str
    words: str
    weights: float
    gradients: float
    optimizer: float
    activations: float  # the most at once
    buffers: float  # of engines, and what is on its way between ranks
    loading: float  # the most at once
    training: float  # the most at once
    training_at_budget: float  # the same, were a micro-batch as large as the setting allows
    usable: float
    fits: bool
    host: float  # of each machine: what its ranks keep there beside their devices
    host_saving: float  # of each machine: copies while a checkpoint is written
    host_memory: float | None
    disk: float
    largest_budget: int | None  # None: not even one sequence
    sent: float  # bytes per step
    flops: float  # per token
    efficiency: float
    efficiency_origin: str
    tokens_per_second: float  # over all ranks
    seconds_per_step: float
    seconds_sending: float  # of these, if nothing else were done meanwhile
    steps: int | None
    seconds: float | None
    checkpoint: float
    model: float
    remedy: list[str] | None  # overrides with which it fits; None: it does, or nothing was found

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return asdict(self)


@dataclass(kw_only=True)
class Planner:
    """Plans one model on one kind of hardware, under any strategy."""

    config: Config
    hardware: Hardware
    workload: Workload
    outline: nn.Module  # on the meta device
    inputs: Inputs  # of the model's forward, for sequences of these lengths
    kept: Mapping[str, torch.dtype] = field(default_factory=dict)  # as `Blueprint.kept`
    words: str = "all rows are trained"  # what of the embedding is trained, for people
    efficiency: tuple[float, str] = (EFFICIENCY, "assumed")
    _footprints: dict[tuple[Setting, int], Footprint] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.shapes = Shapes.of(self.outline, XLMRobertaXLLayer, self.kept)

    def plan(self) -> Plan:
        """Plan the configuration as it is; where it does not fit, find the cheapest change that makes it."""
        config = self.config
        states, work, tokens, micro_batches = self._parts(config)
        peak, fits = self.peak(states, work), self.fits()
        flops = work.flops / tokens
        mean_tokens = self.workload.mean * config.train.batch_size
        computing = flops * mean_tokens / (self.hardware.ranks * self._speed(config))
        sending = states.sent / self._wire()
        steps = self._steps(config)
        seconds = max(computing, sending)
        return Plan(
            hardware=self.hardware.describe(),
            ranks=self.hardware.ranks,
            strategy=strategy_name(config, self.hardware),
            precision=config.train.precision,
            recompute=config.train.recompute,
            parameters=self.shapes.all,
            trained=self.shapes.trained,
            tokens_per_micro_batch=budget_of(config),
            tokens=tokens,
            micro_batches=micro_batches,
            lengths=self.workload.origin,
            words=self.words,
            weights=states.weights,
            gradients=states.gradients,
            optimizer=states.optimizer,
            activations=work.layers,
            buffers=states.buffers + states.layers,
            loading=states.loading + (self.hardware.is_cpu * states.host),
            training=peak,
            training_at_budget=self.peak(*self._parts(config, full=True)[:2]),
            usable=self.hardware.usable,
            fits=fits,
            host=states.host * self.hardware.per_machine * (not self.hardware.is_cpu),
            host_saving=states.saving * self.hardware.per_machine * config.train.checkpoint_in_background,
            host_memory=self.hardware.host_memory,
            disk=states.disk * self.hardware.per_machine,
            largest_budget=self.largest_budget(config),
            sent=states.sent,
            flops=flops,
            efficiency=self.efficiency[0],
            efficiency_origin=self.efficiency[1],
            tokens_per_second=mean_tokens / seconds,
            seconds_per_step=seconds,
            seconds_sending=sending,
            steps=steps,
            seconds=None if steps is None else steps * seconds,
            checkpoint=self._checkpoint(config),
            model=4.0 * (self.shapes.all),
            remedy=None if fits else self.remedy(),
        )

    def fits(self) -> bool:
        """Return whether the configuration fits as it is."""
        states, work, _, _ = self._parts(self.config)
        return self.peak(states, work) <= self.hardware.usable and self._host_fits(states)

    def peak(self, states: States, work: Footprint) -> float:
        """Return the most bytes that a rank's device holds at once."""
        lasting = states.lasting + (states.host if self.hardware.is_cpu else 0.0)
        layers, end = lasting + work.layers + states.layers, lasting + work.end + states.end
        if states.whole_gradients:  # none is there when backward begins, no activation when it ends
            layers -= states.gradients
            end = lasting + work.backward - work.kept
        return max(layers, end, lasting + states.step, states.loading)

    def largest_budget(self, config: Config) -> int | None:
        """Return the most tokens per micro-batch that fit; None: not even one sequence of the allowed length."""
        usable, least = self.hardware.usable, max(lengths_of(config.task).values())

        def peak(tokens: int) -> float:
            states, work, _, _ = self._parts(config, budget=tokens, full=True)
            return self.peak(states, work)

        if not self._host_fits(self._states(config, 1)):
            return None
        low, high = ANCHORS
        slope = max((peak(high) - peak(low)) / (high - low), 1e-3)
        found = min(MOST_TOKENS, low + int((usable - peak(low)) / slope))
        while found >= least:
            found = max(least, found // STEP_OF_BUDGET * STEP_OF_BUDGET)
            if peak(found) <= usable:
                return found
            found -= STEP_OF_BUDGET
        return None

    def best_budget(self) -> int:
        """Return what train.tokens_per_micro_batch=auto stands for: as many as fit, and a step has.

        Raises:
            ConfigError: Not even one sequence fits.
        """
        config = self.config
        least = max(lengths_of(config.task).values())
        if (budget := self.largest_budget(config)) is None:
            raise ConfigError(self.fault())
        most = CPU_TOKENS if self.hardware.is_cpu else MOST_TOKENS
        whole = self.workload.cut(config.train.batch_size, self.hardware.ranks, MOST_TOKENS).tokens
        enough = -(-whole // STEP_OF_BUDGET) * STEP_OF_BUDGET
        return max(least, min(budget, most, max(enough, least)))

    def least_recompute(self) -> str:
        """Return what train.recompute=auto stands for: as few layers as fit; full, where even that does not.

        Where the budget is to be found too, one of LEAST_TOKENS must fit.
        """
        config = deepcopy(self.config)
        if config.train.tokens_per_micro_batch == "auto":
            config.train.tokens_per_micro_batch = max(LEAST_TOKENS, *lengths_of(config.task).values())

        def excess(choice: str) -> float:
            config.train.recompute = choice
            states, work, _, _ = self._parts(config)
            return self.peak(states, work) - self.hardware.usable

        without = excess("none")
        if without <= 0:
            return "none"
        layers = next(len(module.layer) for module in self.outline.modules() if isinstance(module, XLMRobertaXLEncoder))
        saved = max((without - excess("full")) / layers, 1.0)  # by a layer
        for period in range(layers, 1, -1):
            if -(-layers // period) * saved >= without and excess(f"every_{period}") <= 0:
                return f"every_{period}"
        return "full"

    def fault(self) -> str:
        """Return, as a message, that the run does not fit, and with which overrides it would."""
        states, work, tokens, _ = self._parts(self.config)
        return (
            f"training must fit into memory: it needs {gigabytes(self.peak(states, work))} on each of "
            f"{self.hardware.ranks} ranks with {tokens:,} tokens in a micro-batch, {gigabytes(states.lasting)} of it "
            f"for weights, gradients and moments, and may use {gigabytes(self.hardware.usable)}. {self.advice()}"
        )

    def advice(self) -> str:
        """Return with which overrides it would fit, as the end of a message."""
        remedy = self.remedy()
        return f"It fits with {' '.join(remedy)}." if remedy else "Use more or larger devices, or a smaller model."

    def remedy(self) -> list[str] | None:
        """Return the overrides that make it fit, those that cost least first; None: none of ours does."""
        wanted = budget_of(self.config)
        found: list[str] | None = None
        for words, config in self._changes():
            if (budget := self.largest_budget(config)) is None:
                continue
            cut = [f"train.tokens_per_micro_batch={budget}"] if budget < wanted else []
            if budget >= min(LEAST_TOKENS, wanted, self._parts(config)[2]):
                return [*words, *cut]
            found = found or [*words, *cut]
        return found

    def _changes(self) -> Iterator[tuple[list[str], Config]]:
        """Yield configurations that take less and less, with the overrides that make them."""
        own, ranks = self.config, self.hardware.ranks
        strategies: list[list[str]] = [[]]
        if ranks > 1 and own.strategy.name not in ("fsdp2", "zero3"):
            strategies += [["strategy=fsdp2"], ["strategy=zero3"]]
        if not self.hardware.is_cpu:
            strategies += [["strategy=fsdp2", "strategy.offload=true"], ["strategy=zero3_offload"]]
        rank_of = ["none", "selective", "full"]
        given = own.train.recompute if own.train.recompute in rank_of else "selective"
        again = [own.train.recompute, *rank_of[rank_of.index(given) + 1 :]]
        if own.optimizer.name == "adamw_8bit":  # which DeepSpeed's engines do not take
            strategies = [words for words in strategies if not any("zero" in word for word in words)]
        for strategy, recompute in product(strategies, again):
            config = deepcopy(own)
            words = list(strategy)
            if strategy:
                config.strategy = VARIANTS["strategy"][strategy[0].partition("=")[2]](device=own.strategy.device)
                if isinstance(config.strategy, FSDP2Config):
                    config.strategy.offload = len(strategy) > 1
            if recompute != own.train.recompute:
                config.train.recompute = recompute
                words.append(f"train.recompute={recompute}")
            yield words, config

    def _parts(
        self, config: Config, *, budget: int | None = None, full: bool = False
    ) -> tuple[States, Footprint, int, int]:
        """Return states, footprint, tokens of the fullest micro-batch and the number of these of a step.

        Args:
            config: What is planned.
            budget: Tokens per micro-batch; None: the configuration's.
            full: Whether the budget is filled even where a step has fewer tokens.
        """
        budget = budget_of(config) if budget is None else budget
        cut = self.workload.cut(config.train.batch_size, self.hardware.ranks, budget)
        tokens = budget if full else cut.tokens
        return self._states(config, cut.micro_batches), self.footprint(config, tokens), tokens, cut.micro_batches

    def _states(self, config: Config, micro_batches: int) -> States:
        return states_of(config, self.shapes, self.hardware.ranks, micro_batches)

    def footprint(self, config: Config, tokens: int) -> Footprint:
        """Return what a micro-batch of so many tokens takes: a straight line through two that are looked at."""
        setting = Setting(
            precision=config.train.precision,
            recompute=config.train.recompute,
            divided=is_divided(config),
            cuda=not self.hardware.is_cpu,
            attention=config.model.attn_implementation,
        )
        low, high = (self._measured(setting, anchor) for anchor in ANCHORS)
        return low.towards(high, (tokens - ANCHORS[0]) / (ANCHORS[1] - ANCHORS[0]))

    def _measured(self, setting: Setting, tokens: int) -> Footprint:
        if (setting, tokens) not in self._footprints:
            inputs = self.inputs(self.workload.filled(tokens))
            self._footprints[setting, tokens] = footprint(self.outline, inputs, setting)
        return self._footprints[setting, tokens]

    def _host_fits(self, states: States) -> bool:
        if self.hardware.is_cpu or self.hardware.host_memory is None:
            return True
        return states.host * self.hardware.per_machine <= self.hardware.host_memory

    def _speed(self, config: Config) -> float:
        return self.hardware.peak(config.train.precision) * self.efficiency[0]

    def _wire(self) -> float:
        device = self.hardware.accelerator
        return device.network if self.hardware.machines > 1 else device.link

    def _steps(self, config: Config) -> int | None:
        settings = config.train
        if self.workload.total is None:
            return settings.max_steps
        per_epoch = -(-self.workload.total // settings.batch_size)
        steps = -(-int(settings.epochs * per_epoch * 1000) // 1000)
        return min(steps, settings.max_steps) if settings.max_steps else steps

    def _checkpoint(self, config: Config) -> float:
        alone = deepcopy(config)
        alone.strategy = VARIANTS["strategy"]["single"]()
        return states_of(alone, self.shapes, 1).saving


def budget_of(config: Config) -> int:
    """Return the tokens per micro-batch; where the largest that fits is wanted, the least that is allowed."""
    budget = config.train.tokens_per_micro_batch
    return max(lengths_of(config.task).values()) if isinstance(budget, str) else budget


def strategy_name(config: Config, hardware: Hardware) -> str:
    """Return the strategy that runs: `auto` is one of two."""
    if config.strategy.name != "auto":
        return config.strategy.name
    return "ddp" if hardware.ranks > 1 else "single"


def plan_on(
    world: World, config: Config, outline: nn.Module, inputs: Inputs, workload: Workload,
    kept: Mapping[str, torch.dtype],
) -> Planner:  # fmt: skip
    """Return a planner for the ranks of a session, taking all machines to be as this one."""
    hardware = this_machine(device=world.device.type)
    hardware = replace(hardware, machines=max(1, world.size // hardware.per_machine))
    return Planner(
        config=config, hardware=hardware, workload=workload, outline=outline, inputs=inputs, kept=kept
    )  # fmt: skip


def with_recompute(planner: Planner, choice: str, budget: int | None = None) -> Planner:
    """Return a planner of the same run that computes another choice of layers twice, with another budget if given."""
    config = deepcopy(planner.config)
    config.train.recompute = choice
    if budget is not None:
        config.train.tokens_per_micro_batch = budget
    return replace(planner, config=config)
