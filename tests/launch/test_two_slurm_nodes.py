"""A real SLURM with two nodes: warned, requeued, gone on; preempted; finished; mistaken; cancelled; an array."""

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from launching import LAUNCH, LONG, QUICK, REPOSITORY, environment, stopped, wait_for_steps, wait_until

NODES = Path(__file__).with_name("two_slurm_nodes.sh")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="SLURM's daemons need root"),
]


class Cluster:
    """The commands of SLURM."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = environment(SLURM_CONF=str(folder / "slurm.conf"))

    def __call__(self, *words: object) -> str:
        done = subprocess.run(
            [str(word) for word in words],
            cwd=REPOSITORY,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def submit(self, *words: object, options: str = "--nodes 2") -> str:
        """Submit launch/slurm.sbatch and return the job's number."""
        out = f"--output={self.folder}/job-%j.out"
        return self("sbatch", "--parsable", *options.split(), out, LAUNCH / "slurm.sbatch", *words)

    def state(self, job: str) -> str:
        """Return for example "PENDING restarts=1 exit=0:0", of an array's tasks the last one's."""
        shown = self("scontrol", "show", "job", job)
        fields = dict(re.findall(r"(JobState|Restarts|ExitCode)=(\S+)", shown))
        return f"{fields['JobState']} restarts={fields['Restarts']} exit={fields['ExitCode']}"

    def wait(self, job: str, state: str) -> None:
        """Wait until a job is in a state."""
        wait_until(lambda: self.state(job).startswith(state), f"job {job} {state}", 300)

    def start_again(self, job: str) -> None:
        """Start a requeued job now and not two minutes later; a node takes it no sooner than a second after its end."""
        time.sleep(2)
        self("scontrol", "update", f"job={job}", "StartTime=now")

    def said(self, job: str) -> str:
        """Return what a job wrote."""
        return (self.folder / f"job-{job}.out").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("slurm")
    with (folder / "setup.log").open("wb") as log:  # the daemons keep it open
        subprocess.run([str(NODES), "up", str(folder)], check=True, timeout=600, stdout=log, stderr=log)
    cluster = Cluster(folder)
    yield cluster
    subprocess.run([str(NODES), "down", str(folder)], check=True, timeout=90)


def test_a_warned_job_is_requeued_goes_on_and_finishes(cluster, tmp_path) -> None:
    folder = tmp_path / "run"
    words = [*LONG, "train.max_steps=400", f"run.dir={folder}"]
    job = cluster.submit(*words)
    last = wait_for_steps(folder)
    cluster("scancel", "--batch", "--signal=USR1", job)  # what SLURM sends before the time limit
    cluster.wait(job, "PENDING restarts=1")
    step = stopped(folder)["step"]
    assert step >= last
    assert "exit code 75 after a warning, the job is RUNNING" in cluster.said(job)
    cluster.start_again(job)
    cluster.wait(job, "COMPLETED restarts=1 exit=0:0")
    said = cluster.said(job)
    assert f"going on from {folder}/checkpoints/step-{step:08d}" in said
    assert said.count("2 x cpu") == 2
    assert (folder / "report.json").is_file()


def test_a_job_that_another_one_displaces_comes_back(cluster, tmp_path) -> None:
    folder, other = tmp_path / "run", tmp_path / "other"
    job = cluster.submit(*LONG, f"run.dir={folder}")
    last = wait_for_steps(folder)
    urgent = cluster.submit(*QUICK, f"run.dir={other}", options="--nodes 2 --partition urgent")
    cluster.wait(job, "PENDING restarts=1")
    assert stopped(folder)["step"] >= last
    cluster.wait(urgent, "COMPLETED")
    cluster.start_again(job)
    wait_for_steps(folder, more_than=last)
    cluster("scancel", job)
    cluster.wait(job, "CANCELLED restarts=1")  # by its user: not requeued, but saved
    assert stopped(folder)["step"] > last


def test_a_mistake_is_not_requeued(cluster, tmp_path) -> None:
    job = cluster.submit(*QUICK, "seed=x", f"run.dir={tmp_path / 'run'}")
    cluster.wait(job, "FAILED restarts=0 exit=2:0")
    assert "error: seed must be" in cluster.said(job)


def test_an_array_is_one_run_for_each_seed(cluster, tmp_path) -> None:
    cluster.submit(*QUICK, f"run.dir={tmp_path}/run-${{seed}}", options="--array 1-2 --nodes 1")
    for seed in (1, 2):
        wait_until((tmp_path / f"run-{seed}" / "report.json").is_file, f"seed {seed}")
        assert f"seed: {seed}\n" in (tmp_path / f"run-{seed}" / "config.yaml").read_text()


def test_tasks_that_would_each_train_alone_are_refused_once(cluster, tmp_path) -> None:
    words = ["srun", "--nodes", "2", "python", "-m", "xlmrxl_train", *QUICK, f"run.dir={tmp_path / 'run'}"]
    done = subprocess.run(words, cwd=REPOSITORY, env=cluster.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("error: $WORLD_SIZE must be set where several processes are started") == 1
    assert not (tmp_path / "run").exists()
