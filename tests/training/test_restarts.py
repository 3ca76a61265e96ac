"""Ranks that are killed or asked to stop under torchrun: nothing is lost, and nothing starts that should not."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from jobs import WORDS, assert_same, events, run
from test_ranks import WORKER

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
TWO = ["--standalone", "--nproc-per-node", "2", "--max-restarts"]


def launch(folder: Path, what: str, *words: str, max_restarts: int = 0) -> str:
    """Train on two ranks, one of which has something done to it, to a good end; return what they said."""
    command = [*TORCHRUN, *TWO, str(max_restarts), str(WORKER), str(folder.parent), what, *WORDS]
    done = subprocess.run(
        [*command, f"run.dir={folder}", *words],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two ranks that was never interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLMRXL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        folder = tmp_path_factory.mktemp("two_ranks") / "run"
        launch(folder, "command")
        return folder


def stopped(folder: Path) -> dict:
    return json.loads((folder / "stopped.json").read_text(encoding="utf-8"))


def test_a_rank_that_is_killed_is_started_again_with_the_others(tmp_path) -> None:
    folder = tmp_path / "run"
    said = launch(folder, "kill:1", max_restarts=1)
    assert re.findall(r"going on from \S+/step-0000000(\d)", said) in (["7"], ["9"]), (
        said
    )  # 9 may have been half written
    assert [event["step"] for event in events(folder) if event["event"] == "train"] == [*range(1, 17)]
    assert (folder / "report.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_after_a_kill_losses_and_report_are_those_of_an_uninterrupted_run(tmp_path, two_ranks, rank) -> None:
    launch(tmp_path / "run", f"kill:{rank}", max_restarts=1)
    assert_same(tmp_path / "run", two_ranks)


def test_a_signal_to_one_rank_stops_all_at_one_step_and_none_is_started_again(tmp_path) -> None:
    folder = tmp_path / "run"
    said = launch(folder, "SIGTERM:1", max_restarts=3)
    assert said.count("stopped after step 5; the same command goes on from there") == 1, said
    assert stopped(folder) == {"reason": "another rank was asked to stop", "step": 5}
    assert (folder / "checkpoints/step-00000005").exists() and not (folder / "report.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["SIGTERM:0", "SIGUSR1:1"])
def test_after_a_signal_the_next_start_goes_on_as_if_nothing_was(tmp_path, two_ranks, what) -> None:
    folder = tmp_path / "run"
    launch(folder, what, max_restarts=3)
    assert stopped(folder)["step"] == 5
    launch(folder, "command")
    assert_same(folder, two_ranks)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [("zero3", "fsdp2"), ("fsdp2", "zero3")])
def test_a_divided_model_is_saved_on_a_signal_and_goes_on_divided_otherwise(tmp_path, two_ranks, first, then) -> None:
    folder = tmp_path / "run"
    launch(folder, "SIGTERM:1", f"strategy={first}", max_restarts=3)
    assert stopped(folder)["step"] == 5
    launch(folder, "command", f"strategy={then}")
    losses = [[event["loss"] for event in events(path) if event["event"] == "train"] for path in (folder, two_ranks)]
    assert len(losses[0]) == 16 and (folder / "report.json").exists()
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.slow
def test_a_job_goes_on_with_fewer_machines(tmp_path) -> None:
    folder, endpoint = tmp_path / "run", f"localhost:{_free_port()}"
    words = [*WORDS, "model.hidden_dropout_prob=0", "model.attention_probs_dropout_prob=0", "train.epochs=60"]
    words += ["train.checkpoint_every=10", "evaluate.every=0", "evaluate.select=last"]
    elastic = ["--nnodes", "1:2", "--max-restarts", "3", "--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint]
    elastic += ["--rdzv-id", "faults", "--rdzv-conf", "last_call_timeout=5", "--local-addr", "localhost"]

    def agent(ranks: int) -> "subprocess.Popen[str]":
        command = [
            *TORCHRUN,
            *elastic,
            "--nproc-per-node",
            str(ranks),
            "-m",
            "xlmrxl_train",
            *words,
            f"run.dir={folder}",
        ]
        with (tmp_path / f"{ranks}.log").open("w") as log:
            return subprocess.Popen(command, env=ENVIRONMENT, stderr=log, stdout=log, text=True)

    agents = [agent(2), agent(1)]
    try:
        end = time.monotonic() + 120
        while not (folder / "metrics.jsonl").exists() or len(events(folder)) < 30:
            assert time.monotonic() < end and agents[0].poll() is None, (tmp_path / "2.log").read_text()[-5000:]
            time.sleep(0.02)
        kill(agents[1])
        code = agents[0].wait(timeout=180)
    finally:
        for process in agents:
            kill(process)
    said = (tmp_path / "2.log").read_text()
    assert code == 0, said[-5000:]
    assert ", 3 x cpu, strategy" in said and ", 2 x cpu, strategy" in said
    assert f"going on from {folder}/checkpoints/step-000000" in said
    losses = {event["step"]: event["loss"] for event in events(folder) if event["event"] == "train"}
    assert list(losses) == [*range(1, 121)] and (folder / "report.json").exists()
    run(tmp_path / "alone", *words[len(WORDS) :])
    alone = {event["step"]: event["loss"] for event in events(tmp_path / "alone") if event["event"] == "train"}
    assert losses == pytest.approx(alone, rel=1e-2)


def kill(agent: "subprocess.Popen[str]") -> None:
    """End an agent and its ranks, which would go on without it, as when a machine fails."""
    if agent.poll() is None:
        for process in [*psutil.Process(agent.pid).children(recursive=True), agent]:
            process.kill()
        agent.wait(timeout=30)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return int(free.getsockname()[1])
