"""The training loop, the same for every task and every strategy.

One step: all micro-batches of the step are known before its first forward pass, so the number of targets N over all
ranks and micro-batches is too; each loss sum is scaled by world size / N. That makes 1 process with 4 micro-batches,
4 processes with 1, and 2 with 2 the same run.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from xlmrxl_train.config import Config
from xlmrxl_train.data.examples import Batch
from xlmrxl_train.errors import RunError
from xlmrxl_train.parallel import StepResult, Strategy
from xlmrxl_train.track.console import Console
from xlmrxl_train.track.json_lines import JsonLines
from xlmrxl_train.training.batches import StepBatches
from xlmrxl_train.training.checkpoint import Checkpointer
from xlmrxl_train.training.schedule import learning_rate
from xlmrxl_train.training.state import TrainState


def seed_of(*parts: int) -> int:
    """Return a seed that differs wherever one of `parts` does."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


def total_steps(config: Config, steps_per_epoch: int) -> int:
    """Return the number of optimizer steps of the whole run."""
    steps = math.ceil(config.train.epochs * steps_per_epoch)
    return min(steps, config.train.max_steps) if config.train.max_steps else steps


@dataclass
class Window:
    """What happened since the last line of the log; sums over this rank's micro-batches."""

    loss_sums: list[torch.Tensor] = field(default_factory=list)  # float32 scalars, on the device
    num_targets: float = 0.0
    tokens: int = 0  # over all ranks
    seconds: float = 0.0  # of steps and of waiting for their input


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
    stop_requested: Callable[[], bool]  # on any rank: save and stop after this step
    window: Window = field(default_factory=Window)

    def run(self) -> bool:
        """Train to the last step and return True, or save and return False where a stop was requested before."""
        state, settings = self.state, self.config.train
        total = total_steps(self.config, self.batches.steps_per_epoch)
        validate_every = self.config.evaluate.every
        validate_every = self.batches.steps_per_epoch if validate_every is None else validate_every
        with self.console.task("train", total, done=state.step) as advance:
            began = time.monotonic()
            for step, micro_batches in self.batches.iterate(state.step, total):
                lr = learning_rate(self.config.schedule, self.config.optimizer.lr, step, total)
                result, stop = self._step(step, micro_batches, lr)
                self._count(step, result, time.monotonic() - began)
                log = state.step % settings.log_every == 0 or state.step == total
                advance(self._log(lr, result) if log else "")
                last = state.step == total
                improved = False
                if validate_every and (state.step % validate_every == 0 or last):
                    improved = self._validate()
                if improved or last or stop or state.step % (settings.checkpoint_every or total) == 0:
                    self.checkpointer.save(self.strategy, state)
                if stop and not last:
                    return False
                began = time.monotonic()
        return True

    def _step(self, step: int, micro_batches: list[Batch], lr: float) -> tuple[StepResult, bool]:
        """Run one optimizer step; also say whether any rank was asked to stop."""
        world = self.strategy.world
        torch.manual_seed(seed_of(self.config.seed, step, world.rank))  # dropout: other masks on every rank and step
        num_targets = sum(batch.num_targets for batch in micro_batches)
        sums = torch.tensor([num_targets, float(self.stop_requested())], device=world.device)
        world.sum(sums)
        scale = world.size / sums[0].clamp(min=1e-9)
        for index, batch in enumerate(micro_batches):
            inputs = batch.to(world.device).inputs
            loss_sum = self.strategy.accumulate(
                inputs, scale if batch.examples else scale * 0, last=index == len(micro_batches) - 1
            )
            if batch.examples:
                self.window.loss_sums.append(loss_sum)
        self.window.num_targets += num_targets
        return self.strategy.step(lr), bool(sums[1] > 0)

    def _count(self, step: int, result: StepResult, seconds: float) -> None:
        state, tokens = self.state, self.batches.tokens(step)
        state.step = step + 1
        state.tokens += tokens
        state.seconds += seconds
        self.window.tokens += tokens
        self.window.seconds += seconds
        if not result.skipped:
            state.skipped_in_a_row = 0
            return
        state.skipped += 1
        state.skipped_in_a_row += 1
        names = [self.batches.corpus.name(example) for example in self.batches.examples(step)]
        self.console.say(f"step {state.step} skipped: gradient norm {result.grad_norm}, examples {', '.join(names)}")
        if self.metrics:
            self.metrics.log("skip", {"step": state.step, "grad_norm": str(result.grad_norm), "examples": names})
        if state.skipped_in_a_row >= self.config.train.max_skipped:
            raise RunError(
                f"{state.skipped_in_a_row} steps in a row had a loss or gradient that is not finite "
                f"(train.max_skipped={self.config.train.max_skipped}). Lower optimizer.lr, lengthen schedule.warmup, "
                "or look at the examples named in metrics.jsonl."
            )

    def _log(self, lr: float, result: StepResult) -> str:
        """Write one line of metrics and return what the progress bar shows."""
        window, state, world = self.window, self.state, self.strategy.world
        loss_sum = torch.stack(window.loss_sums).sum() if window.loss_sums else torch.zeros((), device=world.device)
        sums = world.sum(torch.stack([loss_sum.double(), torch.tensor(window.num_targets).double().to(world.device)]))
        loss = float(sums[0] / sums[1])
        speed = window.tokens / window.seconds
        self.window = Window()
        if self.metrics:
            values = {
                "step": state.step,
                "epoch": round(state.step / self.batches.steps_per_epoch, 4),
                "loss": loss,
                "lr": lr,
                "grad_norm": result.grad_norm,
                "tokens": state.tokens,
                "tokens_per_second": round(speed, 1),
                "skipped": state.skipped,
            }
            self.metrics.log("train", values)
        return f"loss {loss:.4f}  lr {lr:.2e}  {speed:,.0f} tokens/s"

    def _validate(self) -> bool:
        """Score the selection split and remember whether this is the best step so far."""
        score = self.validate(self.state)
        if score is None or (self.state.best_score is not None and score <= self.state.best_score):
            return False
        self.state.best_score, self.state.best_step = score, self.state.step
        return True
