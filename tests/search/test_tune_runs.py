"""Studies of real runs on the packaged sample: finished, pruned, failed, killed and resumed, stopped by Ctrl-C."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from xlmrxl_train.catalogue import look
from xlmrxl_train.cli import load_config
from xlmrxl_train.evaluation.comparison.reading import read_run

REPOSITORY = Path(__file__).resolve().parents[2]
QUICK = [
    "recipe=demo",
    "model.path=null",
    "data.limit=40",
    "evaluate.languages=[en,de]",
    "evaluate.bootstrap=10",
    "evaluate.html=false",
    "evaluate.every=2",
    "train.max_steps=4",
    "train.log_every=1",
    "strategy.device=cpu",
]
LONG = ["train.max_steps=null", "train.epochs=100000", "train.checkpoint_every=20", "evaluate.every=20"]
# Drawn at random by seed 6: the first value, the second, the first, the second.
TWO = "sampler: random\nstartup: 1\ngrace: 0\nspace: {{{key}: {{choices: [{first}, {second}]}}}}\n"


def start(folder: Path, search: str, *words: str) -> "subprocess.Popen[str]":
    """Start `xlmrxl tune` in a folder, as people do."""
    (folder / "search.yaml").write_text(search, encoding="utf-8")
    command = [sys.executable, "-m", "xlmrxl_train", "tune", *words, "--search", "search.yaml"]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def tune(folder: Path, search: str, *words: str) -> tuple[int, str, str]:
    """Run `xlmrxl tune`; return its exit code, and what it printed and said."""
    process = start(folder, search, *words)
    printed, said = process.communicate(timeout=280)
    assert "Traceback" not in said, said
    return process.returncode, printed, said


def rows(study: Path) -> list[dict]:
    return [json.loads(line) for line in (study / "trials.jsonl").read_text(encoding="utf-8").splitlines()]


def wait_for(holds: Callable[[], object], process: "subprocess.Popen[str]", seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def two(key: str, first: str, second: str) -> str:
    return TWO.format(key=key, first=first, second=second)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """Two trials at a time, each a run; the folder, the search and what was printed."""
    folder, search = tmp_path_factory.mktemp("finished"), two("optimizer.lr", "1e-3", "1e-4")
    code, printed, said = tune(folder, search, *QUICK, "seed=6", "--trials", "2", "--workers", "2")
    assert code == 0, (printed, said)
    return folder, search, printed


def test_trials_are_runs_and_the_best_one_is_ready_to_run(finished: tuple[Path, str, str]) -> None:
    folder, _, printed = finished
    study = folder / "runs/demo/tune"
    first, second = rows(study)
    assert [row["parameters"] for row in (first, second)] == [{"optimizer.lr": "0.001"}, {"optimizer.lr": "0.0001"}]
    assert [row["state"] for row in (first, second)] == ["finished"] * 2
    assert [len(row["looks"]) for row in (first, second)] == [2, 2]
    assert first["metric"] == first["looks"][-1]  # the recipe takes the last checkpoint
    runs = [read_run(study / f"trial-{number}") for number in (0, 1)]
    assert {run.split for run in runs} == {"validation"}
    config = yaml.safe_load((study / "trial-0/config.yaml").read_text(encoding="utf-8"))
    assert config["tracker"]["group"] == "demo tune" and config["run"]["name"] == "tune/trial-0"
    events = [json.loads(line) for line in (study / "trial-0/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {event["split"] for event in events if "split" in event} == {"validation"}  # never the test split
    assert {run.folder.name: run.state for run in look([str(folder / "runs")])} == {
        "trial-0": "finished",
        "trial-1": "finished",
    }
    best = max((first, second), key=lambda row: row["metric"])
    assert [(study / f"trial-{number}/model").is_dir() for number in (0, 1)] == [
        number == best["number"] for number in (0, 1)
    ]
    assert not list(study.glob("trial-*/checkpoints"))
    assert f"best: trial {best['number']}: optimizer.lr={best['parameters']['optimizer.lr']}" in printed
    assert f"xlmrxl evaluate runs/demo/tune/trial-{best['number']}" in printed
    script = (study / "best.sh").read_text(encoding="utf-8").splitlines()
    words = shlex.split(script[-1])
    assert words[:4] == ["exec", sys.executable, "-m", "xlmrxl_train"] and words[-1] == "$@"
    config = load_config(words[4:-1])
    assert config.optimizer.lr == float(best["parameters"]["optimizer.lr"])
    assert (config.evaluate.test, config.run.dir) == (True, "runs/demo/tune-best")


def test_finished_trials_are_not_repeated(finished: tuple[Path, str, str]) -> None:
    folder, search, _ = finished
    code, printed, said = tune(folder, search, *QUICK, "seed=6", "--trials", "2")
    assert code == 0, said
    assert "-> runs" not in printed and printed.splitlines()[0].split()[:3] == ["trial", "state", "accuracy"]
    assert printed.splitlines()[3].startswith("best: trial ")
    assert len(list((folder / "runs/demo/tune").glob("trial-*"))) == 2


@pytest.mark.slow
def test_a_trial_that_falls_behind_is_pruned(tmp_path: Path) -> None:
    """Perplexity, where lower is better: a rate of 1e-9 learns nothing."""
    words = ["recipe=demo_pretrain", "data.limit=60", "train.epochs=40", "evaluate.every=10", "strategy.device=cpu",
             "train.languages=[fr,de]", "evaluate.html=false", "train.log_every=5"]  # fmt: skip
    search = two("optimizer.lr", "3e-3", "1e-9")
    code, printed, said = tune(tmp_path, search, *words, "seed=6", "--trials", "2", "--storage", "journal")
    assert code == 0, (printed, said)
    study = tmp_path / "runs/demo_pretrain/tune"
    first, second = rows(study)
    assert [row["parameters"]["optimizer.lr"] for row in (first, second)] == ["0.003", "1e-09"]
    assert (first["state"], second["state"]) == ("finished", "pruned"), printed
    assert len(second["looks"]) < len(first["looks"])
    assert second["why"].startswith("pruned: below the median of earlier trials at look ")
    assert first["metric"] == first["looks"][-1] < second["looks"][0]
    (run,) = look([str(study / "trial-1")])
    assert (run.state, run.why, run.checkpoints) == ("stopped", second["why"], 0)
    assert run.total_steps is not None and run.step < run.total_steps
    assert "pruned: below the median" in printed


@pytest.mark.slow
def test_a_failed_trial_is_recorded_and_the_search_goes_on(tmp_path: Path) -> None:
    search = two("tokenizer.path", "null", "nowhere.json")
    code, printed, said = tune(tmp_path, search, *QUICK, "seed=6", "--trials", "3")
    assert code == 0, (printed, said)
    states = [(row["state"], row["why"]) for row in rows(tmp_path / "runs/demo/tune")]
    assert [state for state, _ in states] == ["finished", "failed", "finished"]
    assert states[1][1].startswith("exit code 2: ") and "nowhere.json" in states[1][1]


def alive(study: Path) -> list[psutil.Process]:
    """Return the processes of trials that run."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if f"run.name={study.name}/trial-0" in (process.info["cmdline"] or [])
        and process.cwd() == str(study.parents[2])
    ]


@pytest.mark.slow
@pytest.mark.parametrize("orphan", [False, True], ids=["with its trial", "and its trial lives on"])
def test_a_killed_study_goes_on(tmp_path: Path, orphan: bool) -> None:
    study, search = tmp_path / "runs/demo/tune", "space: {optimizer.lr: {low: 1e-4, high: 1e-3, log: true}}"
    words = [*QUICK, *LONG, "train.epochs=300", "--trials", "1"]
    process = start(tmp_path, search, *words)
    wait_for(lambda: list(study.glob("trial-0/checkpoints/step-*")), process)
    (trial,) = alive(study)
    process.kill()
    process.communicate()
    if not orphan:
        trial.kill()
        psutil.wait_procs([trial], timeout=30)
    code, printed, said = tune(tmp_path, search, *words)
    assert code == 0, (printed, said)
    lost, again = rows(study)
    assert (lost["state"], lost["why"]) == ("stopped", "its worker was killed; tried again as trial 1")
    assert again["state"] == "finished" and again["folder"] == lost["folder"]
    assert again["parameters"] == lost["parameters"]
    log = (study / "logs/trial-0.txt").read_text(encoding="utf-8")
    if orphan:
        assert f"trial 1: process {trial.pid} on " in printed and "is finished; for another run choose" in log
    else:
        assert "going on from runs/demo/tune/trial-0/checkpoints/step-" in log
    events = [json.loads(line) for line in (study / "trial-0/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [event["step"] for event in events if event["event"] == "train"]
    assert steps == list(range(1, steps[-1] + 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "reason"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 75, "SIGTERM")]
)
def test_a_signal_ends_the_search_and_says_how_to_go_on(
    tmp_path: Path, number: signal.Signals, code: int, reason: str
) -> None:
    study, search = tmp_path / "runs/demo/tune", "space: {optimizer.lr: {low: 1e-4, high: 1e-3, log: true}}"
    process = start(tmp_path, search, *QUICK, *LONG, "--trials", "3")
    wait_for(lambda: list(study.glob("trial-0/checkpoints/step-*")), process)
    os.killpg(process.pid, number)
    printed, said = process.communicate(timeout=60)
    assert process.returncode == code, (printed, said)
    assert f"{reason}: trials save and stop at their next step" in printed
    assert f"stopped by {reason}; to go on: xlmrxl tune recipe=demo " in said and "Traceback" not in said
    assert ("interrupted" in said) == (number == signal.SIGINT)
    (row,) = rows(study)
    assert (row["state"], row["why"]) == ("stopped", f"stopped: {reason}")
    (run,) = look([str(study / "trial-0")])
    assert run.state in ("stopped", "preempted") and run.checkpoints > 0
    assert not alive(study)
