"""Real runs that fail, by a rate 100 times too high, poisoned rows and dead gradients: seen in time, and cured."""

import gzip
import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest
import torch
from jobs import assert_same, events

from tests.torchrun import torchrun
from xlmrxl_train import load_config, train
from xlmrxl_train.cli import main
from xlmrxl_train.data.planning import step_examples
from xlmrxl_train.evaluation.report import Report
from xlmrxl_train.parallel.single import SingleStrategy
from xlmrxl_train.track.json_lines import JsonLines

# The demo's second stage on new weights: 38 steps an epoch, whose loss leaves ln 3 after some 70.
DEMO = ["recipe=demo", "model.path=null", "evaluate.languages=[en]", "evaluate.bootstrap=0", "train.log_every=1"]
TOKENIZER = f"tokenizer.path={resources.files('xlmrxl_train.data.sample')}"
TOO_HIGH = "optimizer.lr=0.1"


def run(folder: Path, *words: str, config_dir: Path | None = None) -> Report | None:
    return train(load_config([f"run.dir={folder}", *words], config_dir=config_dir))


def guarded(folder: Path) -> list[dict]:
    return [event for event in events(folder) if event["event"] == "guard"]


def steps(folder: Path) -> list[int]:
    return [event["step"] for event in events(folder) if event["event"] == "train"]


def accuracy(report: Report | None) -> float:
    assert report is not None
    return report.languages["en"].values["accuracy"]


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLMRXL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def rows_of(split: str) -> tuple[str, list[str]]:
    """The head and the rows of a split of the sample, in English."""
    path = resources.files("xlmrxl_train.data.sample") / "nli" / f"{split}-en.tsv.gz"
    head, *rows = gzip.decompress(path.read_bytes()).decode().splitlines()
    return head, rows


def write_set(folder: Path, name: str, **splits: tuple[str, list[str]]) -> list[str]:
    """Write a data set of files; return the words that choose it, for `folder` / "conf" as config_dir."""
    (folder / "conf/dataset").mkdir(parents=True)
    for split, (head, rows) in splits.items():
        (folder / f"{split}.tsv").write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    files = ", ".join(f"{split}: [{{path: {split}.tsv}}]" for split in splits)
    (folder / "conf/dataset" / f"{name}.yaml").write_text(
        f"# for a test\ndefaults: [sample_nli]\nname: {name}\nlanguages: [en]\nsample: null\nfiles: {{{files}}}\n"
    )
    return [f"dataset={name}", "data.source=files", f"data.root={folder}", TOKENIZER]


@pytest.fixture(scope="module")
def by_heart(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, float]]:
    """Train 200 steps on 64 pairs; return the run's folder and the accuracy on the same pairs."""
    folder = tmp_path_factory.mktemp("by_heart")
    head, rows = rows_of("train")
    words = write_set(folder, "by_heart", **dict.fromkeys(("train", "validation", "test"), (head, rows[:64])))
    words += ["train.epochs=100", "guard.window=40", "evaluate.every=70", "evaluate.select=best"]

    def train_by_heart(name: str, *more: str) -> tuple[Path, float]:
        report = run(folder / name, *DEMO, *words, *more, config_dir=folder / "conf")
        return folder / name, accuracy(report)

    return train_by_heart


@pytest.fixture(scope="module")
def cured(by_heart) -> tuple[Path, float]:
    """A run that begins with a rate 100 times too high, and was never interrupted."""
    return by_heart("cured", TOO_HIGH, "guard=act")


def test_no_false_alarm_on_the_demo(tmp_path) -> None:
    score = accuracy(run(tmp_path / "run", *DEMO, "train.epochs=8", "evaluate.html=false"))
    assert guarded(tmp_path / "run") == [] and score > 0.5


def test_a_rate_100_times_too_high_is_seen_a_window_after_warm_up(by_heart, capfd) -> None:
    sound, best = by_heart("sound", "evaluate.html=false")
    assert guarded(sound) == [] and best > 0.95
    folder, score = by_heart("collapsed", TOO_HIGH, "evaluate.html=false")
    assert score < 0.5  # 47 % of the pairs have one class
    chance, constant = guarded(folder)
    assert (chance["step"], chance["fault"]) == (12 + 40, "chance")
    assert chance["loss"] > chance["loss_of_guessing"] == pytest.approx(1.0986, abs=1e-4)
    assert (constant["step"], constant["fault"]) == (70, "constant")  # at the first look
    said, loss = capfd.readouterr().err, f"{chance['loss']:.4f}"
    assert f"guard: step 52: a loss of {loss} over 20 steps, no better than that of guessing, 1.0986. Lower" in said
    assert (
        "guard: step 70: one prediction for all examples of the validation split in the languages that select. Lower "
        "optimizer.lr, lengthen schedule.warmup, or try another seed." in said
    )
    assert not (folder / "checkpoints/step-00000000").exists()  # only act writes it


def test_acting_recovers_it(cured) -> None:
    folder, score = cured
    back = [event for event in guarded(folder) if "back_to" in event]
    assert [(event["step"], event["fault"], event["back_to"]) for event in back] == [(52, "chance", 0)] * len(back)
    assert back and [event["rate"] for event in back] == [0.5 ** (number + 1) for number in range(len(back))]
    assert steps(folder) == [*range(1, 53)] * len(back) + [*range(1, 201)]
    rates = [event["lr"] for event in events(folder) if event["event"] == "train"]
    assert max(rates[-200:]) == pytest.approx(0.1 * back[-1]["rate"])
    assert f"by {52 * len(back)} steps in all" in (folder / "report.md").read_text(encoding="utf-8")
    assert score > 0.8  # 1.00 at a sound rate, 0.47 without the guard
    kept = {path.name for path in (folder / "checkpoints").iterdir()}
    assert "step-00000200" in kept and "step-00000000" not in kept and len(kept) <= 2  # the last, and the best


def test_it_goes_on_as_if_it_had_never_been_interrupted(by_heart, cured, monkeypatch) -> None:
    """Broken off three times: before the first going back, after it, and late."""
    log, told = JsonLines.log, 0

    def break_off(self: JsonLines, event: str, values: dict) -> None:
        nonlocal told
        log(self, event, values)
        told += event == "train"
        if told in (30, 120, 260):
            told += 1
            raise RuntimeError("the test")

    with monkeypatch.context() as patch:
        patch.setattr(JsonLines, "log", break_off)
        for _ in range(3):
            with pytest.raises(RuntimeError, match="the test"):
                by_heart("interrupted", TOO_HIGH, "guard=act")
    folder, _ = by_heart("interrupted", TOO_HIGH, "guard=act")
    assert_same(folder, cured[0], step=200)


def test_the_report_lists_what_the_guard_saw(cured) -> None:
    page = (cured[0] / "report.html").read_text(encoding="utf-8")
    assert "<h4>Guard</h4>" in page
    assert "<li>step 52, chance: a loss of 1." in page
    assert "; went back to step 0, with 0.5 of the learning rate, 0 steps of examples passed over so far.</li>" in page


COPIES = 8  # of each English pair of the sample, so that one epoch is as long as 8
POISONED = range(200, 212)  # steps, counted from 0, all of whose labels are wrong
WRONG = {"entailment": "neutral", "neutral": "contradiction", "contradiction": "entailment"}


@pytest.fixture
def poisoned(tmp_path: Path) -> list[str]:
    """The words for a data set with rows of wrong labels, which the order of the first epoch brings together."""
    head, rows = rows_of("train")
    rows = rows * COPIES
    for step in POISONED:
        for row in step_examples(len(rows), 32, 1, 0, step).tolist():
            *texts, label = rows[row].split("\t")
            rows[row] = "\t".join([*texts, WRONG[label]])
    words = write_set(tmp_path, "poisoned", train=(head, rows), validation=rows_of("validation"), test=rows_of("test"))
    return [*DEMO, *words, "train.epochs=1", "evaluate.every=0", "evaluate.html=false"]


def test_poisoned_rows_are_seen_within_four_steps_and_passed_over(poisoned, tmp_path, capfd) -> None:
    score = accuracy(run(tmp_path / "run", *poisoned, "guard=act", config_dir=tmp_path / "conf"))
    (event,) = guarded(tmp_path / "run")
    assert event["fault"] == "spike" and POISONED.start < event["step"] <= POISONED.start + 4
    assert event["loss"] > 2 * event["loss_before"]
    bad = {f"en/{row}" for step in POISONED for row in step_examples(9600, 32, 1, 0, step).tolist()}
    assert len(event["examples"]) == 32 and set(event["examples"]) <= bad
    assert event["rate"] == 1 and event["left_out"] == event["step"] - event["back_to"] + 100
    assert score > 0.5  # 0.6 without them
    assert (
        f"past the examples of {event['left_out']} steps, with 1 of the learning rate; 1 of at"
        in capfd.readouterr().err
    )


SHORT = [*DEMO, "train.max_steps=60", "evaluate.every=0", "evaluate.test=false", "train.save_model=false"]
SHORT += ["train.max_grad_norm=0", "train.checkpoint_every=5"]
FACTORS = {"dead": 0.0, "explosion": 1e4, "not finite": float("inf")}


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, range], None]:
    """Multiply the gradients of some optimizer steps, counted from 1 and also through those that are made again."""

    def begin(factor: float, when: range) -> None:
        accumulate, calls = SingleStrategy.accumulate, 0

        def spoiled(self, inputs, scale, *, last):
            nonlocal calls
            calls += last
            return accumulate(self, inputs, scale * factor if calls in when else scale, last=last)

        monkeypatch.setattr(SingleStrategy, "accumulate", spoiled)

    return begin


@pytest.mark.parametrize("kind", FACTORS)
def test_gradients_that_go_wrong_are_seen_within_four_steps(tmp_path, spoil, kind) -> None:
    spoil(FACTORS[kind], range(31, 35))
    run(tmp_path / "run", *SHORT, "guard=act")
    (event,) = guarded(tmp_path / "run")
    assert (event["step"], event["fault"], event["rate"]) == (34, kind, 0.5)
    assert event["back_to"] == 30  # of checkpoints after each 5 steps
    assert steps(tmp_path / "run") == [*range(1, 35), *range(31, 61)]
    state = json.loads((tmp_path / "run/checkpoints/step-00000060/state.json").read_text())
    assert (state["actions"], state["repeated"], state["skipped"]) == (1, 4, 0)


def test_it_goes_back_a_number_of_times_and_then_only_warns(tmp_path, spoil, capfd) -> None:
    spoil(0.0, range(31, 200))
    run(tmp_path / "run", *SHORT, "guard=act", "guard.max_actions=2")
    assert [(event["fault"], event.get("back_to")) for event in guarded(tmp_path / "run")] == [
        ("dead", 30),
        ("dead", 4),  # not the one that did not help, but the guard's own, after warm-up
        ("dead", None),
    ]
    said = capfd.readouterr().err
    assert "Back to step 4, with 0.25 of the learning rate; 2 of at most 2 times." in said
    assert "if it was so from the first step, look at the head and at what is frozen." in said


def test_steps_that_stay_not_finite_end_the_run_when_it_may_not_go_back_again(tmp_path, spoil, capfd) -> None:
    spoil(float("inf"), range(31, 200))
    assert main([f"run.dir={tmp_path / 'run'}", *SHORT, "guard=act", "guard.max_actions=1"]) == 2
    assert "error: 10 steps in a row had a loss or gradient that is not finite" in capfd.readouterr().err
    assert [event.get("back_to") for event in guarded(tmp_path / "run")] == [30, None]


def test_steps_that_change_no_weight_are_said_once_and_not_acted_upon(tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: None)
    run(tmp_path / "run", *SHORT, "guard=act", "train.max_steps=20")
    assert [(event["step"], event["fault"]) for event in guarded(tmp_path / "run")] == [(1, "unchanged")]
    assert [event["unchanged"] for event in events(tmp_path / "run") if event["event"] == "train"][-1] == 20
    assert (
        "guard: step 1: no weight changed, though no loss or gradient was wrong. Look at optimizer.lr, which may be "
        "too small for the weights." in capfd.readouterr().err
    )


def test_without_a_guard_nobody_looks(tmp_path, spoil) -> None:
    spoil(0.0, range(31, 200))
    run(tmp_path / "run", *SHORT, "guard=off")
    assert guarded(tmp_path / "run") == []


RANKS = Path(__file__).with_name("ranks.py")
STRATEGIES = [
    "ddp",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("fsdp2", "zero2", "zero3")),
]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_ranks_see_and_do_what_one_does(tmp_path, strategy) -> None:
    words = [*SHORT, "guard=act", "guard.window=12", "guard.max_actions=1", TOO_HIGH, "train.max_steps=30"]
    run(tmp_path / "one", *words)
    done = torchrun(RANKS, str(tmp_path), "command", *words, f"strategy={strategy}", f"run.dir={tmp_path / 'two'}")
    assert done.returncode == 0, done.stderr
    one, two = guarded(tmp_path / "one"), guarded(tmp_path / "two")
    assert [(event["step"], event["fault"], event.get("back_to")) for event in one] == [
        (event["step"], event["fault"], event.get("back_to")) for event in two
    ]
    assert one and one[0]["back_to"] == 0
    losses = [
        [event["loss"] for event in events(tmp_path / name) if event["event"] == "train"] for name in ("one", "two")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)
