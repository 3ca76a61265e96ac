"""Two ranks on this machine: they finish, stop together, go on after a crash; other people's launchers; files."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from launching import BIN, LAUNCH, LONG, QUICK, REPOSITORY, run, start, steps, stopped, wait_for_steps, wait_until

from xlmrxl_train import load_config
from xlmrxl_train.forecast import plan

LOCAL = LAUNCH / "local.sh"
README = (LAUNCH / "README.md").read_text(encoding="utf-8")


def ranks(launcher: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return sorted(psutil.Process(launcher.pid).children(), key=lambda rank: rank.pid)


def test_two_ranks_finish_and_the_first_one_speaks(tmp_path) -> None:
    folder = tmp_path / "run"
    code, said = run(LOCAL, "-n", "2", *QUICK, f"run.dir={folder}", log=tmp_path / "log")
    assert code == 0, said
    assert said.count("2 x cpu") == 1
    assert (folder / "report.json").is_file()
    assert len(list(folder.glob("logs/*/local_*/attempt_0/1/stderr.log"))) == 1
    assert "Traceback" not in said and "signal handlers" not in said


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fsdp2", "zero3"])
def test_a_divided_model_stops_goes_on_and_finishes(tmp_path, strategy) -> None:
    folder = tmp_path / "run"
    words = [*QUICK, "train.epochs=100", "train.checkpoint_every=50", f"strategy={strategy}", f"run.dir={folder}"]
    launcher = start(LOCAL, "-n", "2", *words, log=tmp_path / "first")
    wait_for_steps(folder)
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(timeout=60) == 75, (tmp_path / "first").read_text()
    step = stopped(folder)["step"]
    code, said = run(LOCAL, "-n", "2", *words, log=tmp_path / "second")
    assert code == 0, said
    assert f"going on from {folder}/checkpoints/step-{step:08d}" in said
    assert f"2 x cpu, strategy {strategy}" in said
    assert steps(folder) == [*range(1, 201)]
    assert (folder / "report.json").is_file() and (folder / "model" / "model.safetensors").is_file()
    assert (folder / "checkpoints" / "step-00000200").is_dir()


def test_a_mistake_starts_no_rank(tmp_path) -> None:
    code, said = run(LOCAL, "-n", "2", *QUICK, "seed=x", f"run.dir={tmp_path / 'run'}", log=tmp_path / "log")
    assert code == 2
    assert said.startswith("error: seed must be")
    assert not (tmp_path / "run").exists()


def test_a_mistake_that_the_ranks_find_is_one_too(tmp_path) -> None:
    words = [*QUICK, "dataset=xnli", "data.source=files", "data.root=nowhere", f"run.dir={tmp_path / 'run'}"]
    code, said = run(LOCAL, "-n", "2", *words, log=tmp_path / "log")
    assert code == 2, said
    assert said.count("error: ") == 1
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "to",
    [
        "SIGTERM to the launcher",
        *(pytest.param(to, marks=pytest.mark.slow) for to in ("SIGUSR1 to the launcher", "SIGTERM to rank 1")),
    ],
)
def test_a_signal_stops_all_ranks_at_one_step_and_nothing_is_restarted(tmp_path, to) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    launcher = start(LOCAL, "-n", "2", *LONG, f"run.dir={folder}", log=log, MAX_RESTARTS="2")
    last = wait_for_steps(folder)
    number = signal.Signals[to.split()[0]]
    target = psutil.Process(launcher.pid) if "launcher" in to else ranks(launcher)[1]
    target.send_signal(number)
    target.send_signal(number)  # a scheduler may send it more than once
    assert launcher.wait(timeout=60) == 75, log.read_text()
    reason = "another rank was asked to stop" if "rank 1" in to else "SIGTERM"
    assert stopped(folder)["reason"] == reason
    assert stopped(folder)["step"] >= last
    assert (folder / f"checkpoints/step-{stopped(folder)['step']:08d}").is_dir()
    assert not list(folder.glob("logs/*/*/attempt_1"))
    assert "Traceback" not in log.read_text()


@pytest.mark.slow
def test_a_rank_that_is_killed_is_started_again_from_the_last_checkpoint(tmp_path) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    launcher = start(LOCAL, "-n", "2", *LONG, f"run.dir={folder}", log=log, MAX_RESTARTS="2")
    wait_for_steps(folder, more_than=60)
    before = {rank.pid for rank in ranks(launcher)}
    ranks(launcher)[1].kill()
    wait_until(lambda: "going on from" in log.read_text(), "a second start")
    wait_until(lambda: len({rank.pid for rank in ranks(launcher)} - before) == 2, "new ranks")
    wait_for_steps(folder, more_than=100)
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait(timeout=60) == 75, log.read_text()
    said = log.read_text()
    assert re.search(r"going on from \S+/checkpoints/step-\d+", said)
    assert "error: another rank has failed or did not answer within strategy.timeout_minutes" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_rank_that_is_killed_without_restarts_ends_the_job_and_is_named(tmp_path) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    launcher = start(LOCAL, "-n", "2", *LONG, f"run.dir={folder}", log=log)
    wait_for_steps(folder)
    ranks(launcher)[1].kill()
    assert launcher.wait(timeout=60) == 1
    assert "error: rank 1 was the first to fail: SIGKILL. What ranks say is in " in log.read_text()
    assert not (folder / "stopped.json").exists()


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once(tmp_path) -> None:
    folder = tmp_path / "run"
    launcher = start(LOCAL, "-n", "2", *LONG, f"run.dir={folder}", log=tmp_path / "log")
    wait_for_steps(folder)
    pids = [rank.pid for rank in ranks(launcher)]
    for rank in ranks(launcher):
        rank.suspend()  # they will not save in time
    launcher.send_signal(signal.SIGINT)
    time.sleep(1)  # two at once are one
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait(timeout=20) == 130
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids), "the end of the ranks", 20)


@pytest.mark.slow
def test_a_machine_that_waits_for_others_stops_at_once(tmp_path) -> None:
    log, variables = tmp_path / "log", {"NNODES": "2", "ENDPOINT": "localhost:29471"}
    launcher = start(LAUNCH / "multinode.sh", *QUICK, f"run.dir={tmp_path / 'run'}", log=log, **variables)
    wait_until(lambda: psutil.Process(launcher.pid).net_connections(), "the meeting place")
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(timeout=30) == 75
    assert log.read_text().endswith("SIGTERM: stopped before any rank was started\n")


def test_words_are_wanted(tmp_path) -> None:
    code, said = run(sys.executable, LAUNCH / "torchrun.py", "recipe=demo", log=tmp_path / "log")
    assert (code, said.startswith("usage: python launch/torchrun.py")) == (2, True)


@pytest.mark.slow
@pytest.mark.parametrize("flags", [["--no_local_rank"], []])
def test_the_deepspeed_launcher(tmp_path, flags) -> None:
    command = [BIN / "deepspeed", "--num_accelerators", "2", *flags, "--module", "xlmrxl_train"]
    folder = tmp_path / "run"
    code, said = run(*command, *QUICK, f"run.dir={folder}", log=tmp_path / "log", DS_ACCELERATOR="cpu")
    assert code == 0, said
    assert said.count("2 x cpu") == 1
    assert ("--local_rank is not needed and ignored" in said) == (not flags)


@pytest.mark.slow
def test_accelerate_launch(tmp_path) -> None:
    options = "--multi_gpu --num_machines 1 --num_processes 2 --mixed_precision no --dynamo_backend no".split()
    command = [BIN / "accelerate", "launch", *options, "--module", "xlmrxl_train"]
    code, said = run(*command, *QUICK, f"run.dir={tmp_path / 'run'}", log=tmp_path / "log")
    assert code == 0, said
    assert said.count("2 x cpu") == 1


@pytest.mark.slow
def test_accelerate_launch_that_starts_one_process_for_two_is_refused(tmp_path) -> None:
    command = [BIN / "accelerate", "launch", "--cpu", "--num_processes", "2", "--module", "xlmrxl_train"]
    code, said = run(*command, *QUICK, f"run.dir={tmp_path / 'run'}", log=tmp_path / "log")
    assert code != 0
    assert "error: accelerate launch was asked for several processes, but started one" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"}, "srun started 2 ($SLURM_STEP_NUM_TASKS) without it"),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}, None),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "mpirun started 4 ($OMPI_COMM_WORLD_SIZE) without it"),
        ({"PMI_SIZE": "4"}, "mpirun started 4 ($PMI_SIZE) without it"),
        ({"ACCELERATE_MIXED_PRECISION": "no", "MASTER_ADDR": "127.0.0.1"}, "accelerate launch was asked for several"),
    ],
)
def test_copies_that_would_each_train_alone_are_refused(tmp_path, monkeypatch, capfd, variables, says) -> None:
    from xlmrxl_train.cli import main

    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main([*QUICK, f"run.dir={tmp_path / 'run'}"]) == 2
    said = capfd.readouterr().err
    assert (says in said and said.count("\n") == 1) if says else said == ""
    assert main([*QUICK, "--cfg", "job"]) == 0  # what launch/torchrun.py asks on every node


def scripts() -> list[Path]:
    first = [path for folder in (LAUNCH, REPOSITORY / "tests/launch") for path in folder.iterdir() if path.is_file()]
    return sorted(path for path in first if path.read_bytes().startswith(b"#!/usr/bin/env bash"))


def lint(tool: str, file: Path) -> None:
    found = shutil.which(tool, path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    if not found:
        pytest.skip(f"{tool} has no build for this machine, and none is on PATH")
    done = subprocess.run([found, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", scripts(), ids=lambda path: path.name)
def test_shell_scripts(script: Path) -> None:
    assert "set -euo pipefail" in script.read_text()
    lint("shellcheck", script)


def test_the_dockerfile() -> None:
    lint("hadolint", LAUNCH / "Dockerfile")


def test_the_image_holds_what_it_copies() -> None:
    kept = {
        line[1:].strip()
        for line in (LAUNCH / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    lines = (LAUNCH / "Dockerfile").read_text().splitlines()
    copied = {word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]}
    assert copied == kept
    assert all((REPOSITORY / name).exists() for name in copied)


@pytest.mark.parametrize("version", ["1.29", "1.33"])
def test_the_job_is_one_to_kubernetes(version) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    for document in yaml.safe_load_all((LAUNCH / "kubernetes-job.yaml").read_text()):
        validate.validate(document, version, strict=True)


def test_the_job_has_one_number_of_machines() -> None:
    _, job = yaml.safe_load_all((LAUNCH / "kubernetes-job.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    nnodes = next(item["value"] for item in container["env"] if item["name"] == "NNODES")
    assert {job["spec"]["completions"], job["spec"]["parallelism"], int(nnodes)} == {2}


def test_the_train_job_is_one_to_kubeflow() -> None:
    models = pytest.importorskip("kubeflow_trainer_api.models")
    document = yaml.safe_load((LAUNCH / "kubernetes.yaml").read_text())
    read = models.TrainerV1alpha1TrainJob.from_dict(document)
    assert without_none(read.to_dict()) == document  # a key that its model does not know would be gone


def without_none(value: object) -> object:
    if isinstance(value, dict):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    return [without_none(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("hardware", "cards", "column", "words"),
    [
        ("H100-80GB", "80 GB, 78", 1, ["model=xl"]),
        ("RTX4090", "24 GB, 22", 4, ["model=xl", "tuning=lora", "tuning.weights=nf4", "train.recompute=full"]),
        ("H200", "141 GB, 140", 5, ["model=xxl"]),
        ("A100-40GB", "40 GB, 38", 6, ["model=xxl", "train.recompute=full"]),
    ],
)
def test_the_table_of_what_fits_is_what_the_plan_says(hardware, cards, column, words) -> None:
    row = next(line for line in README.splitlines() if line.startswith(f"| {cards} |"))
    count, taken = (int(number) for number in row.split("|")[column + 1].split(":"))
    strategy = "single" if count == 1 else "fsdp2"
    planned = plan(load_config(["recipe=xnli", f"plan.hardware={count}x{hardware}", f"strategy={strategy}", *words]))
    assert planned.fits and round(planned.usable / 1e9) == int(cards.split()[-1])
    assert planned.training / 1e9 == pytest.approx(taken, abs=0.6)


def test_every_file_is_named_in_the_readme() -> None:
    assert not [path.name for path in LAUNCH.iterdir() if path.is_file() and f"`{path.name}`" not in README
                and path.name not in ("README.md", "Dockerfile.dockerignore")]  # fmt: skip
