"""Asked to stop by real signals, at every stage: the state is saved, and the next start ends as if nothing was."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from jobs import WORDS, assert_same, events, finish, run, start, wait_for

from xlmrxl_train.cli import main
from xlmrxl_train.evaluation.evaluator import Evaluator
from xlmrxl_train.parallel.single import SingleStrategy
from xlmrxl_train.session import Session
from xlmrxl_train.training.checkpoint import Checkpointer


def send_in(monkeypatch, owner, name: str, call: int, number: signal.Signals) -> None:
    """Send this process a signal at the beginning of the `call`-th call of a real method, which then runs."""
    method, calls = getattr(owner, name), 0

    def wrapped(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), number)
        return method(*args, **kwargs)

    monkeypatch.setattr(owner, name, wrapped)


STAGES = {
    # stage: (method, its call, signal, step in stopped.json)
    "a step": (SingleStrategy, "step", 5, signal.SIGTERM, 6),
    "writing a checkpoint": (Checkpointer, "_complete", 2, signal.SIGUSR1, 7),
    "validation": (SingleStrategy, "predict", 1, signal.SIGUSR1, 7),
    "the last validation": (SingleStrategy, "predict", 5, signal.SIGTERM, 16),
    "the final test evaluation": (SingleStrategy, "predict", 7, signal.SIGTERM, 16),
    "loading the model": (Session, "strategy", 1, signal.SIGUSR1, 0),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_signal_saves_and_stops_and_the_next_start_goes_on(reference, tmp_path, monkeypatch, capfd, stage) -> None:
    owner, name, call, number, step = STAGES[stage]
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        send_in(patch, owner, name, call, number)
        assert main([*WORDS, f"run.dir={folder}"]) == 0
    said = capfd.readouterr().err
    stopped = json.loads((folder / "stopped.json").read_text())
    if stage == "writing a checkpoint":  # in the background: on a busy machine more steps were made meanwhile
        step = max(step, stopped["step"])
    assert f"{number.name}: saving and stopping at the next step" in said
    assert ("stopped before training began" if step == 0 else f"stopped after step {step}; the same command") in said
    assert stopped == {"reason": number.name, "step": step}
    assert not (folder / "report.json").exists()
    assert (folder / f"checkpoints/step-{step:08d}").exists() == (step > 0)
    assert run(folder) is not None
    assert not (folder / "stopped.json").exists()
    assert events(folder) == events(reference.folder)
    assert (folder / "report.json").read_bytes() == (reference.folder / "report.json").read_bytes()
    model = "model/model.safetensors"
    assert (folder / model).read_bytes() == (reference.folder / model).read_bytes()


def test_a_signal_during_the_preparation_of_data_leaves_no_partial_state(tmp_path, monkeypatch, capfd) -> None:
    from xlmrxl_train.data.sources import FileSource

    rows = FileSource.rows

    def rows_with_signal(self, split, language):
        for number, row in enumerate(rows(self, split, language)):
            if number == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            assert number < 10, "rows were read on and on"
            yield row

    monkeypatch.setattr(FileSource, "rows", rows_with_signal)
    assert main([*WORDS, f"run.dir={tmp_path / 'run'}", f"data.cache={tmp_path / 'cache'}"]) == 0
    assert "stopped before training began; the same command goes on" in capfd.readouterr().err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["stopped.json"]
    assert not list((tmp_path / "cache").glob("*.arrow")) + list((tmp_path / "cache").glob("*.tmp"))


def test_max_hours_stops_likewise(reference, tmp_path, monkeypatch) -> None:
    folder, now = tmp_path / "run", time.monotonic
    with monkeypatch.context() as patch:
        step = SingleStrategy.step

        def hours_pass(self, lr):
            patch.setattr(time, "monotonic", lambda: now() + 7200)
            return step(self, lr)

        patch.setattr(SingleStrategy, "step", hours_pass)
        assert run(folder, "train.max_hours=1") is None
    assert json.loads((folder / "stopped.json").read_text()) == {"reason": "train.max_hours=1.0", "step": 2}
    assert run(folder, "train.max_hours=100") is not None
    assert events(folder) == events(reference.folder)


def test_max_hours_that_pass_before_the_first_step(tmp_path) -> None:
    assert run(tmp_path / "run", "train.max_hours=1e-9") is None
    assert json.loads((tmp_path / "run/stopped.json").read_text()) == {"reason": "train.max_hours=1e-09", "step": 0}


def test_a_process_that_gets_sigterm_ends_with_0(reference, tmp_path) -> None:
    folder = tmp_path / "run"
    process = start(folder)
    assert wait_for(lambda: (folder / "metrics.jsonl").exists() and len(events(folder)) >= 2, process)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)  # a launcher and a scheduler may both send one
    assert finish(process).count("SIGTERM: saving and stopping") == 1
    assert json.loads((folder / "stopped.json").read_text())["reason"] == "SIGTERM"
    assert run(folder) is not None
    assert_same(folder, reference.folder)


def test_a_second_ctrl_c_ends_at_once_with_130(tmp_path) -> None:
    folder = tmp_path / "run"
    process = start(folder, "train.epochs=4000", "train.batch_size=60", "evaluate.every=0", "model=mini")
    assert wait_for(lambda: (folder / "metrics.jsonl").exists() and len(events(folder)) >= 1, process)
    process.send_signal(signal.SIGSTOP)  # both arrive before the step that would have stopped
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    while "press Ctrl-C again" not in (line := process.stderr.readline()):
        assert line, "ended before it answered"
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert time.monotonic() - began < 20
    assert "Traceback" not in said


def test_the_evaluator_is_left_between_two_batches(tmp_path, monkeypatch) -> None:
    """A stop during the test evaluation does not wait for its end."""
    send_in(monkeypatch, Evaluator, "evaluate", 4, signal.SIGTERM)
    calls = 0
    predict = SingleStrategy.predict

    def count(self, inputs):
        nonlocal calls
        calls += 1
        return predict(self, inputs)

    monkeypatch.setattr(SingleStrategy, "predict", count)
    assert run(Path(tmp_path / "run"), "evaluate.tokens_per_batch=130") is None
    per_split = calls // 3
    assert calls == 3 * per_split + 1 > 10
