"""Sees from the numbers of steps and evaluations that training fails, and what to do about it.

| fault      | seen                                                                     | answer             |
| ---------- | ------------------------------------------------------------------------ | ------------------ |
| chance     | after a block of steps past warm-up: its second half's loss is guessing's | half the rate     |
| constant   | one prediction for all examples of the selection languages               | half the rate      |
| explosion  | in 4 steps: gradient norms 10 times the largest of the window before     | half the rate      |
| dead       | in 4 steps: a thousandth of the first steps' norms, though loss is high  | half the rate      |
| not finite | in 4 steps in a row                                                      | half the rate      |
| spike      | in 4 steps: a loss far above that of the window before                   | pass over examples |
| unchanged  | in 1 step that changed no weight, though nothing was wrong               | none               |

The loop reads all these numbers anyway, and they are the same on every rank, so every rank decides the same. What is
remembered lies in `TrainState.watch`, so a run that goes on decides as one that was never stopped.

Why these: large encoders that fail in fine-tuning do so by an optimization that goes wrong early, with gradients that
vanish, and more often at higher rates and with no warm-up; such a model then says the majority's class
(arXiv 2006.04884, Mosbach et al. 2021). So the answer is less of the rate, from a point before. A spike comes from some
batches meeting some weights: going back about 100 steps and passing over 200 to 500 batches, those before and during
it, was enough, and the same batches from other weights did no harm (arXiv 2204.02311, PaLM, section 5.1). Here the
examples of the steps that are undone, and of a window more, are passed over. A spike that comes again soon is met with
less of the rate too.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from xlmrxl_train.config import Config
from xlmrxl_train.training.schedule import warmup_steps
from xlmrxl_train.training.state import TrainState, Watch

# The last steps, whose numbers must agree. Source: mosaicml/llm-foundry, callbacks/kill_loss_spike_callback.py, which
# takes a loss for spiking after 4 steps of twice the mean of a window of at least 100 steps or 5 % of the run.
RECENT = 4
FEWEST = 8  # steps before these, so that there is something to compare with
BLOCKS = 20  # of a run, at most
# Below ln K by so much as a model knows that is right 43 times of 100 among 3 classes, and knows how often it is.
OF_CHANCE = 0.98
# A loss must rise by 6 deviations of a step's, by half of its mean, and by half of what was learnt: the first leaves
# out the noise of small batches, the second that of a loss without any, the third hard examples of a good model.
DEVIATIONS, OF_MEAN, OF_LEARNT = 6.0, 0.5, 0.5
# Norms differ a lot from step to step (the largest of 100 may be many medians), so the largest is what counts.
OF_LARGEST = 10.0
# Gradients also become small as the loss does; so only while more than half of the first loss is left.
OF_FIRST_NORM, OF_FIRST_LOSS = 1e-3, 0.5

LESS = "Lower optimizer.lr, lengthen schedule.warmup, or try another seed."
ADVICE = {
    "chance": LESS,
    "constant": LESS,
    "explosion": LESS,
    "dead": f"{LESS[:-1]}; if it was so from the first step, look at the head and at what is frozen.",
    "not finite": f"{LESS[:-1]}; the steps' examples are in metrics.jsonl.",
    "spike": "Look at the examples, which metrics.jsonl names, or lower optimizer.lr.",
    "unchanged": "Look at optimizer.lr, which may be too small for the weights.",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """Something that goes wrong, seen for the first time since it was last well."""

    kind: str
    text: str  # what was seen
    since: int  # the last step of which nothing bad is known
    worst: int | None = None  # the step, counted from 0, whose examples are to be looked at
    numbers: dict[str, float] = field(default_factory=dict)
    curable: bool = True  # whether going back may help


class Guard:
    """Looks at a run, step by step, for a configuration's thresholds."""

    def __init__(self, config: Config, total: int, steps_per_epoch: int, chance: float | None) -> None:
        """Divide the steps after warm-up into blocks.

        Args:
            config: Of the run.
            total: Its optimizer steps.
            steps_per_epoch: Likewise.
            chance: The mean loss of guessing; None: the task has none that is known.
        """
        self.window, self.most = config.guard.window, config.guard.max_actions
        self.enabled, self.acts = config.guard.name != "off", config.guard.name == "act"
        self.chance = chance
        self.max_skipped = min(RECENT, config.train.max_skipped)
        self.block = max(self.window, math.ceil(total / BLOCKS))
        self.half = self.block // 2
        frozen = round(config.optimizer.unfreeze_after * steps_per_epoch)
        self.begin = max(warmup_steps(config.schedule, total), frozen)  # of the first block

    def ends_block(self, step: int) -> bool:
        """Whether a block ends after so many steps, or the first one begins."""
        return step >= self.begin and (step - self.begin) % self.block == 0

    def after_step(
        self, state: TrainState, *, loss_sum: float, num_targets: float, norm: float, unchanged: bool, moving: int
    ) -> list[Fault]:
        """Return what a step shows that was not known before it.

        Args:
            state: After the step; its `watch` is updated.
            loss_sum: Over all targets and ranks.
            num_targets: Likewise.
            norm: Of the gradient, before clipping.
            unchanged: Whether no weight changed for no reason known.
            moving: How many parts of the model moved, where their rates differ.
        """
        if not self.enabled:
            return []
        watch = state.watch
        found = [
            self._new(watch, "not finite", self._not_finite(state)),
            self._new(watch, "unchanged", self._unchanged(state) if unchanged else None),
        ]
        if not state.skipped_in_a_row and num_targets:
            self._remember(watch, loss_sum, num_targets, norm, moving)
            found += [
                self._new(watch, "explosion", self._explosion(state)),
                self._new(watch, "dead", self._dead(state)),
                self._new(watch, "spike", self._spike(state)),
            ]
        if self.ends_block(state.step) and state.step > self.begin:
            found.append(self._new(watch, "chance", self._at_chance(state)))
        if self.ends_block(state.step + self.half):  # only the second half counts: who begins to learn, learns
            watch.block_loss = watch.block_targets = 0.0
        return [fault for fault in found if fault]

    def after_evaluation(self, state: TrainState, *, constant: bool, before: int) -> list[Fault]:
        """Return what an evaluation shows that was not known before it.

        Args:
            state: After it.
            constant: Whether all examples of the selection languages got the same prediction.
            before: The step of the evaluation before it; 0: there was none.
        """
        if not self.enabled or state.step < max(self.begin, self.window):  # early, a sound model may do so
            return []
        fault = Fault(
            kind="constant",
            text="one prediction for all examples of the validation split in the languages that select",
            since=before,
        )
        found = self._new(state.watch, "constant", fault if constant else None)
        return [found] if found else []

    def place(self, state: TrainState, fault: Fault, checkpoints: Sequence[int]) -> int:
        """Return the step of the checkpoint to go back to: the last one from before a fault, else the first.

        A checkpoint from which training failed again is not taken for one from before.
        """
        limit = fault.since
        if state.back_to is not None and self._again(state) and fault.kind != "spike":
            limit = min(limit, state.back_to - 1)
        return max((step for step in checkpoints if step <= limit), default=min(checkpoints))

    def answer(self, state: TrainState, fault: Fault, earlier: TrainState) -> TrainState:
        """Return where a run stands that goes back.

        Args:
            state: Where it stood.
            fault: Why it goes back.
            earlier: What the checkpoint says.
        """
        spike = fault.kind == "spike"
        undone = state.step - earlier.step
        return replace(
            earlier,
            actions=state.actions + 1,
            back_to=earlier.step,
            repeated=state.repeated + undone,
            left_out=state.left_out + (undone + self.window if spike else 0),
            rate=state.rate if spike and not self._again(state) else state.rate / 2,
        )

    @staticmethod
    def notes(state: TrainState) -> list[str]:
        """Return what the report of a run must say where the guard acted."""
        if not state.actions:
            return []
        return [
            f"Guard: training went back to an earlier checkpoint {state.actions} times, by {state.repeated:,} steps in "
            f"all; it ended with {state.rate:.4g} of the learning rate, and passed over the examples of "
            f"{state.left_out:,} steps."
        ]

    def _again(self, state: TrainState) -> bool:
        """Whether the last going back was so short a time ago that it did not help."""
        return state.back_to is not None and state.step <= state.back_to + 2 * self.block

    @staticmethod
    def _new(watch: Watch, kind: str, fault: Fault | None) -> Fault | None:
        """Return a fault that was not there before, and note whether it is there now."""
        if fault is None:
            watch.alarms = [alarm for alarm in watch.alarms if alarm != kind]
            return None
        if kind in watch.alarms:
            return None
        watch.alarms = [*watch.alarms, kind]
        return fault

    def _remember(self, watch: Watch, loss_sum: float, num_targets: float, norm: float, moving: int) -> None:
        if moving != watch.moving:  # layers that were frozen move now: other gradients
            watch.moving, watch.start_norm = moving, None
            watch.losses, watch.targets, watch.norms = [], [], []
        keep = -(self.window + RECENT)
        watch.losses = [*watch.losses, loss_sum / num_targets][keep:]
        watch.targets = [*watch.targets, num_targets][keep:]
        watch.norms = [*watch.norms, norm][keep:]
        watch.block_loss += loss_sum
        watch.block_targets += num_targets
        if len(watch.norms) == RECENT and watch.start_norm is None:
            watch.start_norm = sum(watch.norms) / RECENT
            watch.start_loss = _recent_loss(watch) if watch.start_loss is None else watch.start_loss

    def _not_finite(self, state: TrainState) -> Fault | None:
        if state.skipped_in_a_row < self.max_skipped:
            return None
        return Fault(
            kind="not finite",
            text=f"{state.skipped_in_a_row} steps in a row had a loss or gradient that is not finite",
            since=state.step - state.skipped_in_a_row,
        )

    def _unchanged(self, state: TrainState) -> Fault:
        return Fault(
            kind="unchanged",
            text="no weight changed, though no loss or gradient was wrong",
            since=state.step - 1,
            curable=False,  # a lower rate moves them even less
        )

    def _explosion(self, state: TrainState) -> Fault | None:
        norms = state.watch.norms
        if len(norms) < RECENT + FEWEST:
            return None
        low, high = min(norms[-RECENT:]), max(norms[:-RECENT])
        if not low > OF_LARGEST * high:
            return None
        return Fault(
            kind="explosion",
            text=f"gradient norms from {low:.3g} in the last {RECENT} steps, after at most {high:.3g} in the "
            f"{len(norms) - RECENT} before",
            since=state.step - RECENT,
            numbers={"norm": low, "norm_before": high},
        )

    def _dead(self, state: TrainState) -> Fault | None:
        watch = state.watch
        if len(watch.norms) < RECENT or watch.start_norm is None or watch.start_loss is None:
            return None
        high, loss = max(watch.norms[-RECENT:]), _recent_loss(watch)
        if not (high <= OF_FIRST_NORM * watch.start_norm and loss > OF_FIRST_LOSS * watch.start_loss):
            return None
        return Fault(
            kind="dead",
            text=f"gradient norms of at most {high:.3g} in the last {RECENT} steps, after {watch.start_norm:.3g} in "
            f"the first, though the loss is {loss:.4g}",
            since=state.step - RECENT,
            numbers={"norm": high, "norm_before": watch.start_norm},
            curable=watch.start_norm > 0,  # else it was so before any step
        )

    def _spike(self, state: TrainState) -> Fault | None:
        watch = state.watch
        before = watch.losses[:-RECENT]
        if len(before) < FEWEST or watch.start_loss is None:
            return None
        mean = sum(before) / len(before)
        deviation = math.sqrt(sum((loss - mean) ** 2 for loss in before) / len(before))
        rise = max(DEVIATIONS * deviation, OF_MEAN * mean, OF_LEARNT * (watch.start_loss - mean))
        loss = _recent_loss(watch)
        if not loss > mean + rise:
            return None
        return Fault(
            kind="spike",
            text=f"a loss of {loss:.4g} over the last {RECENT} steps, after {mean:.4g} over the {len(before)} before",
            since=state.step - RECENT,
            worst=state.step - RECENT + max(range(RECENT), key=watch.losses[-RECENT:].__getitem__),
            numbers={"loss": loss, "loss_before": mean},
        )

    def _at_chance(self, state: TrainState) -> Fault | None:
        watch = state.watch
        if self.chance is None or not watch.block_targets:
            return None
        loss = watch.block_loss / watch.block_targets
        if loss < OF_CHANCE * self.chance:
            return None
        before = state.step - 2 * self.block  # where the block before began, which was sound
        return Fault(
            kind="chance",
            text=f"a loss of {loss:.4f} over {self.half} steps, no better than that of guessing, {self.chance:.4f}",
            since=before if before >= self.begin else 0,
            numbers={"loss": loss, "loss_of_guessing": self.chance},
        )


def _recent_loss(watch: Watch) -> float:
    """Return the mean loss over all targets of the last steps: the last step of an epoch may have few."""
    recent = list(zip(watch.losses[-RECENT:], watch.targets[-RECENT:], strict=False))
    return sum(loss * targets for loss, targets in recent) / sum(targets for _, targets in recent)
