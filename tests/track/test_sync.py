"""`xlmrxl sync`: a tracker is told afterwards what it missed, whether it was down, or never there."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from tests.test_run import quick
from tests.track.read_back import (
    expected,
    mlflow_run,
    mlflow_scalars,
    tensorboard_scalars,
    wait_for,
    wandb_history,
    wandb_sessions,
)
from xlmrxl_train import load_config, train
from xlmrxl_train.cli import main
from xlmrxl_train.config import to_dict
from xlmrxl_train.training.folder import RunFolder
from xlmrxl_train.training.speed import MEASURED

REPOSITORY = Path(__file__).resolve().parents[2]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run without trackers."""
    folder = tmp_path_factory.mktemp("synced") / "run"
    assert train(quick(folder, f"data.cache={tmp_path_factory.getbasetemp() / 'cache'}")) is not None
    assert not (folder / "tracker.json").exists()
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """A SQLite file of MLflow's without a run; to make one takes it many seconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}")
    return path


@pytest.fixture
def copy(finished, store, tmp_path, monkeypatch) -> Path:
    """A copy of the run, with a store of its own, and one beside it."""
    monkeypatch.chdir(tmp_path)  # where MLflow puts artifacts if it is told only of a store
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "mlflow").mkdir()
    shutil.copy(store, tmp_path / "run" / "mlflow" / "mlflow.db")
    shutil.copy(store, tmp_path / "other.db")
    return tmp_path / "run"


def test_a_finished_run_that_had_no_tracker(copy, capfd: Capture) -> None:
    assert main(["sync", str(copy), "--to", "tensorboard"]) == 0
    said = capfd.readouterr().err
    assert f"tensorboard: 9 rows of {copy}; tensorboard --logdir {copy}/tensorboard" in said  # 4 + 3 + 1, and the files
    curves, wanted = tensorboard_scalars(copy), expected(copy)
    assert curves.keys() == wanted.keys()
    assert [step for step, _ in curves["train/loss"]] == [4, 8, 12, 16]
    assert main(["sync", str(copy), "--to", "tensorboard"]) == 0
    assert capfd.readouterr().err == f"tensorboard knows all of {copy} already\n"


def test_another_server_is_told_everything_though_the_usual_one_knows(copy, tmp_path, capfd: Capture) -> None:
    assert main(["sync", str(copy), "--to", "mlflow"]) == 0
    assert mlflow_scalars(copy).keys() == expected(copy).keys()
    assert mlflow_run(copy)[0].info.status == "FINISHED"
    other = f"tracker.mlflow_uri=sqlite:///{tmp_path}/other.db"
    capfd.readouterr()
    assert main(["sync", str(copy), "--to", "mlflow", other]) == 0
    assert "mlflow: 9 rows of" in capfd.readouterr().err
    assert set(json.loads((copy / "tracker.json").read_text())["known"]) == {
        "mlflow",
        f"mlflow sqlite:///{tmp_path}/other.db",
    }


def test_what_came_later_is_added_to_the_same_run(copy, capfd: Capture) -> None:
    whole, report = (copy / "metrics.jsonl").read_text(), (copy / "report.json").read_text()
    (copy / "metrics.jsonl").write_text("".join(whole.splitlines(keepends=True)[:1]))
    (copy / "report.json").unlink()
    assert main(["sync", str(copy), "--to", "mlflow"]) == 0
    assert mlflow_run(copy)[0].info.status == "KILLED"  # it may go on
    (copy / "metrics.jsonl").write_text(whole)
    (copy / "report.json").write_text(report)
    assert main(["sync", str(copy), "--to", "mlflow"]) == 0
    found, _ = mlflow_run(copy)
    assert found.info.status == "FINISHED"
    curves, wanted = mlflow_scalars(copy), expected(copy)
    for name in wanted.keys() - {f"train/{name}" for name in MEASURED}:
        assert curves[name] == wanted[name], name


def test_wandb_afterwards(copy) -> None:
    assert main(["sync", str(copy), "--to", "wandb", "tracker.project=another"]) == 0
    (session,) = wandb_sessions(copy)
    wanted = [4, 7, 8, 12, 14, 16, 16, 16]
    wait_for(lambda: len(wandb_history(session)) >= len(wanted))  # wandb's helper writes a little later
    assert [row["step"] for row in wandb_history(session)] == wanted


def test_what_trackio_took_and_lost_with_its_process(tmp_path) -> None:
    """trackio writes within half a second after it took a row; tracker.json knows at once that it did."""
    words = ["recipe=demo", f"run.dir={tmp_path}", "tracker=trackio", f"tracker.trackio_dir={tmp_path / 'store'}"]
    script = f"""
        import os, signal, time
        from pathlib import Path
        from tests.track.test_trackers import knows, wait_for, write_lines
        from xlmrxl_train import load_config
        from xlmrxl_train.track.trackers import Ledger, Trackers
        put = Ledger.put
        def put_and_die(self, name, position):
            put(self, name, position)
            if position[0] == 30:
                os.kill(os.getpid(), signal.SIGKILL)
        Ledger.put = put_and_die
        folder = Path({str(tmp_path)!r})
        config = load_config({words!r})
        lines = write_lines(folder, 10)
        Trackers.open(config, folder, step=0, say=print)
        wait_for(lambda: knows(folder, "trackio {tmp_path / "store"}") == 10, 60)
        time.sleep(1)
        for step in (20, 30):
            lines.log("train", {{"step": step, "loss": 0.5}})
        time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=REPOSITORY)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(to_dict(load_config(words))))
    script = f"""
        import os
        os.environ["TRACKIO_DIR"] = {str(tmp_path / "store")!r}
        from pathlib import Path
        from tests.track.read_back import trackio_rows
        from xlmrxl_train.cli import main
        for _ in range(3):
            print([row["step"] for row in trackio_rows(Path({str(tmp_path)!r}))])
            main(["sync", {str(tmp_path)!r}, "--to", "trackio"])
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, cwd=REPOSITORY)
    held, *later = done.stdout.splitlines()
    assert held in ("[10]", "[10, 20]") and later == ["[10, 20, 30]"] * 2
    missing = 2 if held == "[10]" else 1
    assert f"trackio: {missing} rows of {tmp_path}; " in done.stderr
    assert done.stderr.count(f"trackio knows all of {tmp_path} already") == 2


def test_a_server_that_is_down(copy, capfd: Capture, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    address = f"tracker.mlflow_uri=http://127.0.0.1:{port}"
    assert main(["sync", str(copy), "--to", "mlflow", address]) == 1
    said = capfd.readouterr().err.splitlines()[-1]
    assert said.startswith(f"error: mlflow took 0 of 9 rows of {copy}, then failed (MlflowException: ")
    assert said.endswith("The same command goes on from there.")
    assert not (copy / ".lock").exists()


def test_faults(copy, tmp_path, capfd: Capture) -> None:
    def refused(*words: object) -> str:
        assert main(["sync", *map(str, words)]) == 2
        return capfd.readouterr().err

    assert "sync needs --to, got none. Write --to wandb." in refused(copy)
    assert "--to must be wandb | tensorboard | mlflow | trackio, got 'comet'." in refused(copy, "--to", "comet")
    said = refused(copy, "--to", "mlflow", "seed=2")
    assert said == "error: seed=2 is no key of the tracker, as tracker.mode is. Leave it out.\n"
    said = refused(copy, "--to", "mlflow", "tracker.mlflow_uri=https://***@mlflow.example.org")
    assert "tracker.mlflow_uri must have its secret where *** stands, got https://***@mlflow.example.org." in said
    run = RunFolder(copy)
    run.acquire()
    assert f"run.dir={copy} is in use by process" in refused(copy, "--to", "mlflow")
    run.release()
    (copy / "metrics.jsonl").unlink()
    said = refused(copy, "--to", "mlflow")
    assert said == f"error: {copy} must have metrics.jsonl, found none. Give the folder of a run that has trained.\n"
