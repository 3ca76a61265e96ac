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
DEMO = ["recipe=demo", "model.path=null", "evaluate.languages=[en,de]", "evaluate.bootstrap=0", "train.log_every=1"]
EPOCHS = 8
TOO_HIGH = "optimizer.lr=0.1"
ACT = [*DEMO, f"train.epochs={EPOCHS}", "evaluate.every=95", TOO_HIGH, "guard=act", "guard.window=40"]


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


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    folder = tmp_path_factory.mktemp("healthy") / "run"
    return folder, accuracy(run(folder, *DEMO, f"train.epochs={EPOCHS}", "evaluate.html=false"))


@pytest.fixture(scope="module")
def cured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A run that begins with a rate 100 times too high, and was never interrupted."""
    folder = tmp_path_factory.mktemp("cured") / "run"
    return folder, accuracy(run(folder, *ACT))


def test_no_false_alarm_on_the_demo(healthy) -> None:
    folder, score = healthy
    assert guarded(folder) == [] and score > 0.5


def test_a_rate_100_times_too_high_is_seen_100_steps_after_warm_up(tmp_path, capfd) -> None:
    run(tmp_path / "run", *DEMO, TOO_HIGH, "train.max_steps=130", "evaluate.every=120", "evaluate.html=false")
    chance, constant = guarded(tmp_path / "run")
    assert (chance["step"], chance["fault"]) == (108, "chance")  # 8 of warm-up
    assert chance["loss"] > chance["loss_of_guessing"] == pytest.approx(1.0986, abs=1e-4)
    assert (constant["step"], constant["fault"]) == (120, "constant")  # at the first look
    said = capfd.readouterr().err
    assert (
        f"guard: step 108: a loss of {chance['loss']:.4f} over 50 steps, no better than that of guessing, 1.0986. "
        in said
    )
    assert (
        "guard: step 120: one prediction for all examples of the validation split in the languages that select. Lower "
        "optimizer.lr, lengthen schedule.warmup, or try another seed." in said
    )
    assert not (tmp_path / "run/checkpoints/step-00000000").exists()  # only act writes it


def test_acting_recovers_it(cured, healthy) -> None:
    folder, score = cured
    back = [event for event in guarded(folder) if "back_to" in event]
    assert [event["fault"] for event in back] == ["chance"] * len(back)
    assert back[0]["step"] == 58 and back[0]["back_to"] == 0 and back[0]["rate"] == 0.5  # 18 of warm-up, a window of 40
    assert [event["rate"] for event in back] == [0.5 ** (number + 1) for number in range(len(back))]
    made = steps(folder)
    assert made[:58] == list(range(1, 59)) and made[58] == 1 and made[-304:] == list(range(1, 305))
    rates = [event["lr"] for event in events(folder) if event["event"] == "train"]
    assert rates[-304 + 17] == pytest.approx(0.1 * back[-1]["rate"], rel=0.06)  # the peak
    assert score > healthy[1] - 0.1, (score, healthy[1])  # it failed at a third
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-00000304"]


def test_it_goes_on_as_if_it_had_never_been_interrupted(cured, tmp_path, monkeypatch) -> None:
    """Broken off three times: before the first going back, after it, and at the end."""
    folder, log = tmp_path / "run", JsonLines.log
    told = 0

    def break_off(self: JsonLines, event: str, values: dict) -> None:
        nonlocal told
        log(self, event, values)
        told += event == "train"
        if told in (40, 130, 250):
            told += 1
            raise RuntimeError("the test")

    with monkeypatch.context() as patch:
        patch.setattr(JsonLines, "log", break_off)
        for _ in range(3):
            with pytest.raises(RuntimeError, match="the test"):
                run(folder, *ACT)
    run(folder, *ACT)
    assert_same(folder, cured[0], step=304)


def test_the_report_lists_what_the_guard_saw(cured) -> None:
    page = (cured[0] / "report.html").read_text(encoding="utf-8")
    assert "<h4>Guard</h4>" in page
    assert "<li>step 58, chance: a loss of 1." in page
    assert "; went back to step 0, with 0.5 of the learning rate, 0 steps of examples passed over so far.</li>" in page


COPIES = 8  # of each English pair of the sample, so that one epoch is as long as 8
POISONED = range(200, 212)  # steps, counted from 0, all of whose labels are wrong


@pytest.fixture
def poisoned(tmp_path: Path) -> list[str]:
    """The words for a data set with rows of wrong labels, which the order of the first epoch brings together."""
    sample = resources.files("xlmrxl_train.data.sample") / "nli"
    (tmp_path / "conf/dataset").mkdir(parents=True)
    for split in ("train", "validation", "test"):
        head, *rows = gzip.decompress((sample / f"{split}-en.tsv.gz").read_bytes()).decode().splitlines()
        rows = rows * (COPIES if split == "train" else 1)
        wrong = {"entailment": "neutral", "neutral": "contradiction", "contradiction": "entailment"}
        for step in POISONED if split == "train" else ():
            for row in step_examples(len(rows), 32, 1, 0, step).tolist():
                *texts, label = rows[row].split("\t")
                rows[row] = "\t".join([*texts, wrong[label]])
        (tmp_path / f"{split}.tsv").write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    files = ", ".join(f"{split}: [{{path: {split}.tsv}}]" for split in ("train", "validation", "test"))
    (tmp_path / "conf/dataset/poisoned.yaml").write_text(
        "# rows of wrong labels\ndefaults: [sample_nli]\nname: poisoned\nlanguages: [en]\nsample: null\n"
        f"files: {{{files}}}\n"
    )
    tokenizer = resources.files("xlmrxl_train.data.sample")
    words = ["dataset=poisoned", "data.source=files", f"data.root={tmp_path}", f"tokenizer.path={tokenizer}"]
    return [*DEMO, *words, "evaluate.languages=[en]", "train.epochs=1", "evaluate.every=0", "evaluate.html=false"]


def test_poisoned_rows_are_seen_within_four_steps_and_passed_over(poisoned, healthy, tmp_path, capfd) -> None:
    score = accuracy(run(tmp_path / "run", *poisoned, "guard=act", config_dir=tmp_path / "conf"))
    (event,) = guarded(tmp_path / "run")
    assert event["fault"] == "spike" and POISONED.start < event["step"] <= POISONED.start + 4
    assert event["loss"] > 2 * event["loss_before"]
    bad = {f"en/{row}" for step in POISONED for row in step_examples(9600, 32, 1, 0, step).tolist()}
    assert len(event["examples"]) == 32 and set(event["examples"]) <= bad
    assert event["rate"] == 1 and event["left_out"] == event["step"] - event["back_to"] + 100
    assert score > healthy[1] - 0.1
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
