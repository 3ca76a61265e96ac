"""The training loop, the same for every task and every strategy.

One step: all micro-batches of the step are known before its first forward pass, so the number of targets N over all
ranks and micro-batches is too; each loss sum is scaled by world size / N. That makes 1 process with 4 micro-batches,
4 processes with 1, and 2 with 2 the same run.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from xlmrxl_train.config import Config, ScheduleConfig
from xlmrxl_train.data.examples import Batch
from xlmrxl_train.errors import FROM_FIRST_RANK, RunError
from xlmrxl_train.parallel import StepResult, Strategy
from xlmrxl_train.progress import progress
from xlmrxl_train.stop import Stopped, StopRequest
from xlmrxl_train.track.console import Console
from xlmrxl_train.track.json_lines import JsonLines
from xlmrxl_train.training.batches import StepBatches
from xlmrxl_train.training.checkpoint import Checkpointer
from xlmrxl_train.training.profile import StepProfile
from xlmrxl_train.training.schedule import learning_rate
from xlmrxl_train.training.speed import Speed
from xlmrxl_train.training.state import TrainState


def seed_of(*parts: int) -> int:
    """Return a seed that differs wherever one of `parts` does."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


def total_steps(config: Config, steps_per_epoch: int) -> int:
    """Return the number of optimizer steps of the whole run."""
    steps = math.ceil(config.train.epochs * steps_per_epoch)
    return min(steps, config.train.max_steps) if config.train.max_steps else steps


@dataclass(kw_only=True, slots=True)
class Step:
    """One optimizer step, as it was done."""

    number: int  # from 0
    lr: float
    loss_sum: float  # over all targets and ranks
    num_targets: float  # over all ranks
    result: StepResult
    stop: bool  # whether any rank was asked to stop


@dataclass(kw_only=True)
class Trainer:
    """Runs steps from where `state` stands to the end."""

    config: Config
    strategy: Strategy
    batches: StepBatches
    checkpointer: Checkpointer
    console: Console
    metrics: JsonLines | None  # on rank 0
    validate: Callable[[TrainState], float | None]  # scores the selection split; higher is better
    state: TrainState
    stop: StopRequest
    profile: StepProfile | None = None  # on rank 0 under train.profile

    def __post_init__(self) -> None:
        world = self.strategy.world
        self.speed = Speed.of(self.config, self.strategy)
        if self.config.train.profile and world.is_first:
            self.profile = StepProfile(Path(self.config.run.dir) / "profile", world.device)

    def run(self) -> None:
        """Train to the last step.

        Raises:
            Stopped: A stop was requested; the state is saved, and `run` goes on from it.
        """
        total = total_steps(self.config, self.batches.steps_per_epoch)
        try:
            self._run(total)
        finally:
            if self.profile:
                self.profile.finish(self.console.say)

    def _run(self, total: int) -> None:
        state, profile = self.state, self.profile
        with self.console.task("train", total, done=state.step) as advance:
            if self._validation_due(total) and state.validated_step < state.step:  # stopped before it was done
                self._validate_and_save(total)
            if self._ended_early():  # it was killed after that
                self.checkpointer.wait()
                return
            began = self.speed.begin()
            steps = self.batches.iterate(state.step, total)
            for number, micro_batches in profile.inputs(steps) if profile else steps:
                waited = time.monotonic() - began
                with progress.doing(f"step {number + 1}"), profile.step() if profile else nullcontext():
                    step = self._step(number, micro_batches, learning_rate(*self._rate, number, total))
                self._count(step, time.monotonic() - began, waited)
                log = state.step % self.config.train.log_every == 0 or state.step == total
                advance(self._log(step, total) if log else "")
                if step.stop and state.step < total:
                    self._save()
                    self.checkpointer.wait()
                    raise Stopped
                self._validate_and_save(total)
                if self._ended_early():
                    break
                began = self.speed.begin()
            self.checkpointer.wait()

    @property
    def _rate(self) -> tuple[ScheduleConfig, float]:
        return self.config.schedule, self.config.optimizer.lr

    def _step(self, number: int, micro_batches: list[Batch], lr: float) -> Step:
        """Run one optimizer step."""
        world = self.strategy.world
        torch.manual_seed(seed_of(self.config.seed, number, world.rank))  # dropout: other masks on every rank and step
        num_targets = sum(batch.num_targets for batch in micro_batches)
        sums = world.sum(
            torch.tensor([num_targets, float(self.stop())], dtype=torch.float64).to(world.device, non_blocking=True)
        )
        scale = (world.size / sums[0].clamp(min=1e-9)).float()
        loss_sum = torch.zeros((), dtype=torch.float64, device=world.device)
        for index, batch in enumerate(micro_batches):
            counts = scale if batch.examples else scale * 0
            last = index == len(micro_batches) - 1
            with progress.doing(f"micro-batch {index + 1} of {len(micro_batches)}"):
                with self._phase("host to device"):
                    inputs = batch.to(world.device).inputs
                with self._phase("forward and backward"):
                    loss = self.strategy.accumulate(inputs, counts, last=last)
            if batch.examples:
                loss_sum += loss
        with self._phase("optimizer"):
            result = self.strategy.step(lr)
        changed = torch.tensor(float(not result.unchanged), dtype=torch.float64).to(world.device, non_blocking=True)
        total_loss, ranks_changed = world.sum(torch.stack([loss_sum, changed])).tolist()
        return Step(
            number=number,
            lr=lr,
            loss_sum=total_loss,
            num_targets=float(sums[0]),
            result=replace(result, unchanged=not ranks_changed and lr > 0),
            stop=bool(sums[1] > 0),
        )

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        with progress.doing(name), self.profile.phase(name) if self.profile else nullcontext():
            yield

    def _count(self, step: Step, seconds: float, waited: float) -> None:
        """Add a step to the counters.

        Raises:
            RunError: Too many steps in a row were skipped.
        """
        state, tokens = self.state, self.batches.tokens(step.number)
        state.step = step.number + 1
        state.tokens += tokens
        self.speed.count(tokens=tokens, targets=step.num_targets, seconds=seconds, waited=waited)
        if step.result.unchanged:
            state.unchanged += 1
            self.console.say(f"step {state.step} changed no weight, though no loss or gradient was wrong: look at lr")
        if not step.result.skipped:
            state.skipped_in_a_row = 0
            state.loss_sum += step.loss_sum
            state.num_targets += step.num_targets
            return
        state.skipped += 1
        state.skipped_in_a_row += 1
        norm = step.result.grad_norm
        names = [self.batches.corpus.name(example) for example in self.batches.examples(step.number)]
        self.console.say(
            f"step {state.step} skipped: loss {step.loss_sum}, gradient norm {norm}, examples {', '.join(names)}"
        )
        if self.metrics:
            self.metrics.log("skip", {"step": state.step, "grad_norm": str(norm), "examples": names})
        if state.skipped_in_a_row >= self.config.train.max_skipped:
            fault = RunError(
                f"{state.skipped_in_a_row} steps in a row had a loss or gradient that is not finite "
                f"(train.max_skipped={self.config.train.max_skipped}). Lower optimizer.lr, lengthen schedule.warmup, "
                "or look at the examples named in metrics.jsonl."
            )
            fault.add_note(FROM_FIRST_RANK)  # all ranks saw it
            raise fault

    def _log(self, step: Step, total: int) -> str:
        """Write one line of metrics and return what the progress bar shows; loss is the mean since the last line."""
        state = self.state
        loss = state.loss_sum / state.num_targets if state.num_targets else math.nan
        speed = self.speed.values() | self.speed.energy(self.strategy.world)
        state.loss_sum = state.num_targets = 0.0
        if self.metrics:
            values: dict[str, object] = {
                "step": state.step,
                "total_steps": total,
                "epoch": round(state.step / self.batches.steps_per_epoch, 4),
                "loss": loss,
                "lr": step.lr,
                "grad_norm": step.result.grad_norm,
                "tokens": state.tokens,
                **speed,
                "skipped": state.skipped,
                "unchanged": state.unchanged,
            }
            if step.result.rates:
                values["rates"] = step.result.rates
            self.metrics.log("train", values)
            self.console.show_training(values)
        return f"loss {loss:.4f}  lr {step.lr:.2e}  {speed['tokens_per_second']:,.0f} tokens/s"

    def _validation_due(self, total: int) -> bool:
        """Return whether the validation split is to be scored after the steps done so far."""
        step, every = self.state.step, self.config.evaluate.every
        every = self.batches.steps_per_epoch if every is None else every
        return step > 0 and every > 0 and (step % every == 0 or step == total)

    def _validate_and_save(self, total: int) -> None:
        """Score the validation split and write a checkpoint, each where it is due or the model got better."""
        state = self.state
        improved = False
        if self._validation_due(total):
            try:
                score = self.validate(state)
            except Stopped:
                self._save()  # the validation will be done first when the run goes on
                self.checkpointer.wait()
                raise
            state.validated_step = state.step
            if score is not None and (state.best_score is None or score > state.best_score):
                state.best_score, state.best_step, improved = score, state.step, True
            state.weigh(score, self.config.train.min_delta)
            if self._ended_early():
                self._say_ended()
        every = self.config.train.checkpoint_every
        if improved or self._ended_early() or state.step == total or (every and state.step % every == 0):
            self._save()

    def _ended_early(self) -> bool:
        """Whether the validation split has ended training; the same on every rank, as its scores are."""
        patience = self.config.train.patience
        return patience is not None and self.state.patience_used >= patience

    def _say_ended(self) -> None:
        """Say that training ends here."""
        state = self.state
        self.console.say(
            f"training ends after step {state.step}: no better score in {state.patience_used} looks at the validation "
            f"split; the best one is of step {state.best_step}"
        )
        if self.metrics:
            self.metrics.log("early_stop", {"step": state.step, "best_step": state.best_step})

    def _save(self) -> None:
        self.state.metrics_lines = self.metrics.lines if self.metrics else 0
        self.checkpointer.save(self.strategy, self.state)
