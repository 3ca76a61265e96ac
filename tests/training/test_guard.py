"""What the guard makes of the numbers of steps and evaluations, and where it goes back to."""

import math
import time
from dataclasses import replace
from itertools import chain, repeat

import pytest

from xlmrxl_train.config import Config, leaves
from xlmrxl_train.training.guard import ADVICE, RECENT, Fault, Guard
from xlmrxl_train.training.state import TrainState, Watch

CHANCE = math.log(3)
TOTAL = 1000  # steps; 60 of warm-up, blocks of 100


def guard_of(*, total: int = TOTAL, chance: float | None = CHANCE, **settings: object) -> Guard:
    """Return a guard of the default configuration; settings are written section_key=value."""
    config = Config()
    for name, value in settings.items():
        section, _, key = name.partition("_")
        assert f"{section}.{key}" in dict(leaves(config))
        setattr(getattr(config, section), key, value)
    return Guard(config, total, 100, chance)


def seen(guard: Guard, numbers, state: TrainState | None = None, **more) -> list[tuple[int, str]]:
    """Take steps of these losses and gradient norms; return (step, kind) of what is seen."""
    state = state or TrainState()
    found = []
    for loss, norm in numbers:
        state.step += 1
        step = {"loss_sum": 32 * loss, "num_targets": 32.0, "norm": norm, "unchanged": False, "moving": 0} | more
        found += [(state.step, fault.kind) for fault in guard.after_step(state, **step)]
    return found


def learning(steps: int, noise: float = 0.1):
    """Yield a loss from ln 3 down to a third of it, and norms up to 20 times the usual one."""
    for step in range(steps):
        wave = math.sin(37 * step)
        yield CHANCE * (0.33 + 0.67 * math.exp(-step / 80)) + noise * wave, 1.0 + 19 * (step % 17 == 5)


def test_a_run_that_learns_is_left_alone() -> None:
    assert seen(guard_of(), learning(TOTAL)) == []
    assert seen(guard_of(), learning(TOTAL, noise=0.25)) == []
    rare = ((0.01 if step % 50 else 0.5, 0.05 if step % 50 else 40.0) for step in range(600))  # learnt by heart
    assert seen(guard_of(), chain(learning(300), rare)) == []


def test_a_loss_at_chance_is_seen_when_a_block_after_warm_up_is_over() -> None:
    assert seen(guard_of(), repeat((CHANCE, 1.0), 500)) == [(160, "chance")]  # once, while it lasts
    assert seen(guard_of(), repeat((0.985 * CHANCE, 1.0), 500)) == [(160, "chance")]
    assert seen(guard_of(), repeat((0.975 * CHANCE, 1.0), 500)) == []
    assert seen(guard_of(), repeat((2 * CHANCE, 1.0), 500)) == [(160, "chance")]  # nor is it any better than guessing
    assert seen(guard_of(chance=None), repeat((CHANCE, 1.0), 500)) == []
    assert seen(guard_of(guard_name="off"), repeat((CHANCE, 1.0), 500)) == []
    assert seen(guard_of(guard_window=200), repeat((CHANCE, 1.0), 500)) == [(260, "chance")]
    assert seen(guard_of(total=10_000), repeat((CHANCE, 1.0), 3000)) == [(1100, "chance")]  # 600 + a 20th
    assert seen(guard_of(optimizer_unfreeze_after=1.0), repeat((CHANCE, 1.0), 500)) == [(200, "chance")]


def test_who_begins_to_learn_late_in_a_block_is_left_alone_and_a_relapse_is_seen_again() -> None:
    late = chain(repeat((CHANCE, 1.0), 110), repeat((0.9, 1.0), 100), repeat((CHANCE, 1.0), 300))
    assert seen(guard_of(), late) == [(260, "chance")]
    away = chain(repeat((CHANCE, 1.0), 210), repeat((0.9, 1.0), 100), repeat((CHANCE, 1.0), 300))
    assert seen(guard_of(), away) == [(160, "chance"), (360, "chance")]


def test_a_spike_is_seen_within_four_steps() -> None:
    for length in (1, RECENT, 30):
        found = seen(guard_of(), chain(learning(300), repeat((9.0, 1.0), length), repeat((0.4, 1.0), 59 - length)))
        assert found == [(301, "spike")]
    assert seen(guard_of(), chain(learning(300), repeat((CHANCE, 1.0), 9))) == [(303, "spike")]  # all is forgotten
    assert seen(guard_of(), chain(learning(300), repeat((0.8, 1.0), 60))) == []  # 6 deviations are not enough alone
    last_of_epoch = {"loss_sum": 4.0, "num_targets": 1.0}  # a step of one example
    state = TrainState()
    assert seen(guard_of(), learning(300), state) == seen(guard_of(), [(0, 1.0)], state, **last_of_epoch) == []


def test_a_spike_names_the_worst_step() -> None:
    guard, state = guard_of(), TrainState()
    seen(guard, learning(300), state)
    seen(guard, [(0.4, 1.0), (0.9, 1.0)], state)
    state.step += 1
    (fault,) = guard.after_step(state, loss_sum=320.0, num_targets=32.0, norm=1.0, unchanged=False, moving=0)
    assert fault.worst == 302 and fault.since == 299 and fault.numbers["loss"] == pytest.approx(11.7 / 4, rel=0.02)
    assert fault.text == "a loss of 2.895 over the last 4 steps, after 0.3968 over the 100 before"


def test_gradients_that_explode_or_die_are_seen_within_four_steps() -> None:
    assert seen(guard_of(), chain(learning(200), repeat((0.5, 300.0), 30))) == [(204, "explosion")]
    assert seen(guard_of(), chain(learning(200), repeat((0.5, 150.0), 30))) == []  # the window has a norm of 20
    assert seen(guard_of(), chain(repeat((1.0, 1.0), 30), repeat((1.0, 0.0), 30))) == [(34, "dead")]
    assert seen(guard_of(), repeat((1.0, 0.0), 30)) == [(4, "dead")]
    assert seen(guard_of(), chain(learning(200), repeat((0.01, 1e-4), 30))) == []  # learnt by heart
    thawed = TrainState()
    assert seen(guard_of(), repeat((1.0, 0.1), 60), thawed) == []
    assert seen(guard_of(), repeat((1.0, 9.0), 60), thawed, moving=2) == []
    assert thawed.watch.start_norm == 9.0


def test_steps_that_are_not_finite_or_change_nothing_are_said_once() -> None:
    guard, state = guard_of(), TrainState()
    seen(guard, learning(40), state)
    for number in range(1, 7):
        state.step, state.skipped_in_a_row = state.step + 1, number
        found = guard.after_step(state, loss_sum=math.nan, num_targets=32.0, norm=math.inf, unchanged=False, moving=0)
        assert [(fault.kind, fault.since) for fault in found] == [("not finite", 40)] * (number == 4)
    assert len(state.watch.losses) == 40
    state.skipped_in_a_row = 0
    assert seen(guard, repeat((1.0, 1.0), 3), state, unchanged=True) == [(47, "unchanged")]
    assert seen(guard, repeat((1.0, 1.0), 3), state) == []
    assert seen(guard, repeat((1.0, 1.0), 3), state, unchanged=True) == [(53, "unchanged")]
    early = TrainState(step=2, skipped_in_a_row=2)
    (fault,) = guard_of(train_max_skipped=2).after_step(
        early, loss_sum=math.nan, num_targets=32.0, norm=math.nan, unchanged=False, moving=0
    )
    assert fault.text == "2 steps in a row had a loss or gradient that is not finite"


def test_one_prediction_for_all_is_seen_at_an_evaluation_that_is_not_early() -> None:
    guard, state = guard_of(), TrainState(step=99)
    assert guard.after_evaluation(state, constant=True, before=0) == []
    state.step = 300
    assert [(found.kind, found.since) for found in guard.after_evaluation(state, constant=True, before=99)] == [
        ("constant", 99)
    ]
    assert guard.after_evaluation(state, constant=True, before=300) == []
    assert guard.after_evaluation(state, constant=False, before=400) == []
    assert len(guard.after_evaluation(state, constant=True, before=500)) == 1


def fault(kind: str, since: int) -> Fault:
    return Fault(kind=kind, text="", since=since)


def test_it_goes_back_to_the_last_checkpoint_from_before() -> None:
    guard, state = guard_of(guard_name="act"), TrainState(step=460)
    places = [0, 160, 260, 360]
    assert guard.place(state, fault("spike", 456), places) == 360
    assert guard.place(state, fault("explosion", 300), places) == 260
    assert guard.place(state, fault("constant", 0), places) == 0
    assert guard.place(state, fault("chance", 100), [160, 260]) == 160  # a run that began from another one's checkpoint
    again = replace(state, back_to=360)
    assert guard.place(again, fault("chance", 400), places) == 260  # that one did not help
    assert guard.place(again, fault("spike", 456), places) == 360
    assert guard.place(replace(state, back_to=0), fault("chance", 0), places) == 0
    assert guard.place(replace(state, back_to=160), fault("chance", 400), places) == 360  # long ago


@pytest.mark.parametrize(
    ("kind", "back_to", "rate", "left_out"),
    [("chance", None, 0.25, 7), ("spike", None, 0.5, 207), ("spike", 350, 0.25, 207), ("spike", 150, 0.5, 207)],
)
def test_the_answer_is_half_the_rate_or_other_examples(kind, back_to, rate, left_out) -> None:
    before = TrainState(step=460, actions=1, back_to=back_to, repeated=20, left_out=7, rate=0.5, tokens=460)
    earlier = TrainState(step=360, tokens=360, watch=Watch(losses=[1.0]))
    after = guard_of(guard_name="act").answer(before, fault(kind, 400), earlier)
    assert (after.rate, after.left_out, after.actions, after.repeated) == (rate, left_out, 2, 120)
    assert (after.step, after.back_to, after.tokens, after.watch) == (360, 360, 360, earlier.watch)


def test_going_back_is_in_vain_where_it_was_so_before_any_step_or_no_weight_moves() -> None:
    assert set(ADVICE) == {"chance", "constant", "explosion", "dead", "not finite", "spike", "unchanged"}

    def curable(norms: list[float], *, unchanged: bool = False) -> list[bool]:
        guard, state, found = guard_of(), TrainState(), []
        for norm in norms:
            state.step += 1
            step = {"loss_sum": 32.0, "num_targets": 32.0, "norm": norm, "unchanged": unchanged, "moving": 0}
            found += [seen.curable for seen in guard.after_step(state, **step)]
        return found

    assert curable([0.0] * 8) == [False]
    assert curable([1.0] * 8 + [0.0] * 8) == [True]
    assert curable([1.0], unchanged=True) == [False]


def test_a_report_says_that_the_guard_acted() -> None:
    assert Guard.notes(TrainState(step=9)) == []
    assert Guard.notes(TrainState(actions=2, repeated=1104, rate=0.25, left_out=200)) == [
        "Guard: training went back to an earlier checkpoint 2 times, by 1,104 steps in all; it ended with 0.25 of the "
        "learning rate, and passed over the examples of 200 steps."
    ]


def test_looking_at_a_step_takes_a_ten_thousandth_of_a_second() -> None:
    guard, numbers = guard_of(), list(learning(2000))
    began = time.process_time()
    seen(guard, numbers)
    assert (time.process_time() - began) / len(numbers) < 2e-4  # a step of the smallest real model takes a tenth of one
