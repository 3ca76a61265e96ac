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


NO_DROPOUT = ["model.hidden_dropout_prob=0", "model.attention_probs_dropout_prob=0", "evaluate.every=0"]
NO_DROPOUT += ["evaluate.select=last"]


class Machines:
    """torchrun's agents of one job, on one machine: `--nnodes 1:2`."""

    def __init__(self, folder: Path, *program: str) -> None:
        self.folder, self.program, self.endpoint = folder, program, f"localhost:{_free_port()}"
        self.environment = ENVIRONMENT | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}  # launch/torchrun.py says why

    def start(self, ranks: int) -> "subprocess.Popen[str]":
        """Start an agent with so many ranks of its own."""
        elastic = ["--nnodes", "1:2", "--max-restarts", "3", "--nproc-per-node", str(ranks)]
        elastic += ["--rdzv-backend", "c10d", "--rdzv-endpoint", self.endpoint, "--rdzv-id", "faults"]
        elastic += ["--rdzv-conf", "last_call_timeout=5", "--local-addr", "localhost"]
        with (self.folder / f"{ranks}.log").open("w") as log:
            command = [*TORCHRUN, *elastic, *self.program, f"run.dir={self.folder / 'run'}"]
            return subprocess.Popen(command, env=self.environment, stderr=log, stdout=log, text=True)

    def said(self, ranks: int) -> str:
        """Return what the agent with so many ranks has said."""
        return (self.folder / f"{ranks}.log").read_text()

    def wait_for_events(self, count: int) -> None:
        """Wait until the run has logged so many."""
        end = time.monotonic() + 120
        while not (self.folder / "run" / "metrics.jsonl").exists() or len(events(self.folder / "run")) < count:
            assert time.monotonic() < end, [file.read_text()[-3000:] for file in self.folder.glob("*.log")]
            time.sleep(0.02)


def losses_of(folder: Path) -> dict[int, float]:
    """Return the loss of each step; each is there once."""
    steps = [event for event in events(folder) if event["event"] == "train"]
    assert [event["step"] for event in steps] == [*range(1, len(steps) + 1)]
    return {event["step"]: event["loss"] for event in steps}


@pytest.mark.slow
def test_a_job_goes_on_with_fewer_machines(tmp_path) -> None:
    words = [*WORDS, *NO_DROPOUT, "train.epochs=60", "train.checkpoint_every=10"]
    machines, folder = Machines(tmp_path, str(WORKER), str(tmp_path), "slow:0.1", *words), tmp_path / "run"
    agents = [machines.start(2), machines.start(1)]
    try:
        machines.wait_for_events(30)
        kill(agents[1])
        code = agents[0].wait(timeout=180)
    finally:
        for process in agents:
            kill(process)
    said = machines.said(2)
    assert code == 0, said[-5000:]
    assert ", 3 x cpu, strategy" in said and ", 2 x cpu, strategy" in said
    assert f"going on from {folder}/checkpoints/step-000000" in said
    losses = losses_of(folder)
    assert len(losses) == 120 and (folder / "report.json").exists()
    run(tmp_path / "alone", *words[len(WORDS) :])
    assert losses == pytest.approx(losses_of(tmp_path / "alone"), rel=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["auto", "fsdp2", "zero3"])
def test_a_job_goes_on_with_a_machine_that_joins(tmp_path, strategy) -> None:
    """Its rank is asked to stop, and saves, before torchrun starts it anew among all: no step is made twice."""
    words = [*WORDS, *NO_DROPOUT, "train.epochs=4", "train.checkpoint_every=1"]
    engine = [] if strategy == "auto" else [f"strategy={strategy}"]
    machines = Machines(tmp_path, str(WORKER), str(tmp_path), "slow:1", *words, *engine)
    folder, agents = tmp_path / "run", [machines.start(1)]
    try:
        machines.wait_for_events(2)
        agents.append(machines.start(2))
        codes = [agent.wait(timeout=180) for agent in agents]
    finally:
        for process in agents:
            kill(process)
    said = machines.said(1) + machines.said(2)
    assert codes == [0, 0], said[-5000:]
    assert ", 1 x cpu, strategy" in said and ", 3 x cpu, strategy" in said
    stopped_after = re.findall(r"stopped after step (\d+); the same command goes on from there", said)
    assert len(stopped_after) == 1, said
    assert f"going on from {folder}/checkpoints/step-{int(stopped_after[0]):08d}" in said
    assert (folder / "report.json").exists() and not (folder / "stopped.json").exists()
    run(tmp_path / "alone", *words[len(WORDS) :])
    assert losses_of(folder) == pytest.approx(losses_of(tmp_path / "alone"), rel=1e-4)


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
