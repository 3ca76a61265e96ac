"""`xlmrxl runs` and `xlmrxl clean`: how runs stand, and whose checkpoints go."""

import io
import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_run import quick
from xlmrxl_train import train
from xlmrxl_train.catalogue import free_checkpoints, look_at
from xlmrxl_train.cli import main
from xlmrxl_train.errors import RunError
from xlmrxl_train.training.folder import RunFolder

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Two runs of seconds: one finished, one failed as soon as it had begun."""
    runs = tmp_path_factory.mktemp("catalogue") / "runs"
    cache = f"data.cache={tmp_path_factory.getbasetemp() / 'cache'}"
    assert train(quick(runs / "demo" / "seed-1", cache)) is not None
    with pytest.raises(RunError, match="steps in a row"):
        train(quick(runs / "demo" / "seed-2", cache, "optimizer.lr=1e30", "train.max_skipped=2"))
    return runs


@pytest.fixture
def runs(made, tmp_path) -> Path:
    """Those, one that was told to stop, and one that was killed."""
    folder = tmp_path / "runs"
    shutil.copytree(made, folder)
    for name in ("seed-3", "seed-4"):
        shutil.copytree(folder / "demo" / "seed-1", folder / "demo" / name)
        (folder / "demo" / name / "report.json").unlink()
    (folder / "demo" / "seed-3" / "stopped.json").write_text('{"reason": "SIGTERM", "step": 16}')
    return folder


def test_how_runs_stand(runs, capsys: Capture) -> None:
    assert main(["runs", str(runs), "--json"]) == 0
    found = {Path(run["folder"]).name: run for run in json.loads(capsys.readouterr().out)}
    assert {name: run["state"] for name, run in found.items()} == {
        "seed-1": "finished",
        "seed-2": "failed",
        "seed-3": "preempted",
        "seed-4": "failed",
    }
    assert found["seed-2"]["why"].startswith("RunError: 2 steps in a row had a loss or gradient that is not finite")
    assert found["seed-3"]["why"] == "SIGTERM"
    assert found["seed-4"]["why"].startswith("ended without a word: killed")
    first = found["seed-1"]
    assert (first["step"], first["total_steps"], first["metric"]) == (16, 16, "accuracy")
    report = json.loads((runs / "demo" / "seed-1" / "report.json").read_text())
    assert first["score"] == report["averages"]["accuracy"]["mean"]
    assert first["size"] > first["checkpoints"] > 100_000
    lines = [json.loads(line) for line in (runs / "demo" / "seed-3" / "metrics.jsonl").read_text().splitlines()]
    validated = [line["accuracy"]["mean"] for line in lines if line["event"] == "averages" and line["split"] != "test"]
    assert found["seed-3"]["score"] == max(validated)


def test_the_table(runs, capsys: Capture) -> None:
    assert main(["runs", str(runs / "demo" / "seed-[12]")]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "state", "step", "score", "age", "size"]
    assert len(rows) == 2
    assert any("finished" in row and "16/16" in row and "accuracy" in row and " MB" in row for row in rows)


def test_a_run_is_running_as_long_as_a_process_has_its_lock(runs) -> None:
    run = RunFolder(runs / "demo" / "seed-4")
    run.acquire()
    assert look_at(run.path).state == "running"
    assert look_at(run.path).why == f"process {os.getpid()} on {os.uname().nodename}"
    run.release()
    (run.path / ".lock").write_text("process 1 on a machine that went down")
    assert look_at(run.path).state == "failed"


def test_the_mark_of_a_failure_goes_when_the_run_goes_on(made, tmp_path) -> None:
    shutil.copytree(made / "demo" / "seed-1", tmp_path / "run")
    (tmp_path / "run" / "report.json").unlink()
    (tmp_path / "run" / "failed.json").write_text('{"reason": "x", "step": 3}')
    assert train(quick(tmp_path / "run")) is not None
    assert not (tmp_path / "run" / "failed.json").exists()


def test_clean_takes_the_checkpoints_of_finished_runs_alone(runs, capfd: Capture) -> None:
    assert main(["clean", str(runs), "--yes"]) == 0
    said = capfd.readouterr()
    assert "seed-1  finished" in said.out and "seed-3" not in said.out
    assert f"kept: {runs / 'demo' / 'seed-3'}, " in said.err
    assert "preempted, and would go on from them; --all removes them" in said.err
    assert "freed " in said.err
    first = runs / "demo" / "seed-1"
    assert not (first / "checkpoints").exists() and (first / "model" / "config.json").is_file()
    assert (first / "report.json").is_file() and not (first / ".lock").exists()
    assert (runs / "demo" / "seed-3" / "checkpoints").is_dir()
    assert main(["clean", str(first)]) == 0
    assert "no checkpoints to free" in capfd.readouterr().err


def test_all_means_those_that_could_go_on_too_but_none_that_runs(runs, capfd: Capture) -> None:
    run = RunFolder(runs / "demo" / "seed-4")
    run.acquire()
    assert main(["clean", str(runs), "--yes", "--all"]) == 0
    assert f"kept: {run.path}, " in capfd.readouterr().err
    run.release()
    assert (run.path / "checkpoints").is_dir()
    assert not (runs / "demo" / "seed-3" / "checkpoints").exists()


def test_weights_that_lie_nowhere_else_stay(runs, capfd: Capture) -> None:
    first = runs / "demo" / "seed-1"
    shutil.rmtree(first / "model")
    assert main(["clean", str(first), "--yes"]) == 0
    assert "they are its only weights (train.save_model=false)" in capfd.readouterr().err
    assert (first / "checkpoints").is_dir()


def test_it_asks_and_no_is_no(runs) -> None:
    def answer(text: str) -> int:
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "xlmrxl_train", "clean", str(runs / "demo" / "seed-1")]
        process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.write(ours, text.encode())
        code = process.wait(60)
        os.close(ours)
        os.close(theirs)
        return code

    checkpoints = runs / "demo" / "seed-1" / "checkpoints"
    assert answer("\n") == 1 and checkpoints.is_dir()
    assert answer("y\n") == 0 and not checkpoints.exists()


def test_a_run_that_began_meanwhile_keeps_its_checkpoints(runs) -> None:
    found = look_at(runs / "demo" / "seed-1")
    run = RunFolder(found.folder)
    run.acquire()
    with pytest.raises(RunError, match=r"seed-1 is in use by now. Wait for it, then clean again."):
        free_checkpoints(found)
    run.release()
    shutil.rmtree(found.folder / "checkpoints")
    (found.folder / "checkpoints").write_text("a file")
    with pytest.raises(RunError, match=r"seed-1/checkpoints could not be removed: Not a directory. Mend its permi"):
        free_checkpoints(found)


def test_faults(runs, tmp_path, capfd: Capture, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path / "runs")
    assert main(["runs"]) == 2
    assert "runs is not a run folder: it does not exist." in capfd.readouterr().err
    assert main(["clean", str(runs), "--yess"]) == 2
    assert "--yess is not a flag." in capfd.readouterr().err
    monkeypatch.setattr("sys.stdin", io.StringIO("y"))
    assert main(["clean", str(runs)]) == 2
    said = capfd.readouterr().err
    assert "clean asks before it removes anything, but standard input is no terminal. Add --yes." in said
