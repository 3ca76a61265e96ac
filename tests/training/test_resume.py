"""Whether and from where a run goes on: run.resume, changed settings and data, damaged checkpoints, locks."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from jobs import WORDS, assert_same, events, run, start, wait_for

from xlmrxl_train.cli import main
from xlmrxl_train.errors import CheckpointError, RunError
from xlmrxl_train.training.checkpoint import Checkpointer, read_state
from xlmrxl_train.training.folder import RunFolder

FILES = ["tensors/rank-00000.safetensors", "tensors/index.json", "state.json", "manifest.json"]


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def bit_flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def deleted(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES = [truncated, bit_flipped, deleted, emptied]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_every_damage_is_seen_and_named(interrupted, tmp_path, file, damage) -> None:
    folder = Path(shutil.copytree(interrupted / "checkpoints", tmp_path / "checkpoints"))
    damage(folder / "step-00000009" / file)
    checkpoint, faults = Checkpointer(folder, keep=1).latest()
    assert checkpoint == folder / "step-00000007"
    assert len(faults) == 1
    assert file in faults[0]
    if file != "manifest.json":  # a flipped bit there may show as a file that does not fit it
        assert str(folder / "step-00000009" / file) in faults[0]


def goes_on_after(damage, file: str, folder: Path, reference: Path, capfd) -> None:
    damage(folder / "checkpoints/step-00000009" / file)
    assert run(folder) is not None
    said = capfd.readouterr().err
    assert f"damaged checkpoint passed over: {folder / 'checkpoints/step-00000009'}/" in said
    assert file in said
    assert f"going on from {folder / 'checkpoints/step-00000007'}" in said
    assert_same(folder, reference)


@pytest.mark.parametrize(("file", "damage"), [(FILES[0], bit_flipped), (FILES[3], emptied)])
def test_the_last_good_checkpoint_is_used(reference, copy_of_interrupted, capfd, file, damage) -> None:
    goes_on_after(damage, file, copy_of_interrupted, reference.folder, capfd)


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_the_last_good_checkpoint_is_used_after_any_damage(reference, copy_of_interrupted, capfd, file, damage) -> None:
    goes_on_after(damage, file, copy_of_interrupted, reference.folder, capfd)


def test_without_any_good_checkpoint_the_run_is_refused_and_left_as_it_is(copy_of_interrupted, capfd) -> None:
    folder = copy_of_interrupted
    for step in (6, 7, 9):
        truncated(folder / f"checkpoints/step-{step:08d}/tensors/index.json")

    def times() -> dict[Path, int]:  # but for what says why the last start failed
        files = (path for path in folder.rglob("*") if path.is_file() and path.name != "failed.json")
        return {path: path.stat().st_mtime_ns for path in files}

    before = times()
    assert main([*WORDS, f"run.dir={folder}"]) == 2
    said = capfd.readouterr().err
    assert f"error: run.dir={folder} has no checkpoint to go on from:" in said
    assert said.count("index.json must have") == 3
    assert "Restore one from a copy, or start over with another run.name." in said
    assert "Traceback" not in said
    assert times() == before


def test_a_damaged_best_checkpoint_falls_back_to_one_before_it(reference, copy_of_interrupted, capfd) -> None:
    bit_flipped(copy_of_interrupted / "checkpoints/step-00000007/state.json")
    assert run(copy_of_interrupted) is not None
    said = capfd.readouterr().err
    assert "It was the best one until step 9. Restore it from a copy, or set run.resume=" in said
    assert "checkpoints/step-00000006" in said
    assert_same(copy_of_interrupted, reference.folder)


def test_a_checkpoint_can_go_on_without_the_best_one(copy_of_interrupted, capfd) -> None:
    deleted(copy_of_interrupted / "checkpoints/step-00000007/state.json")
    assert run(copy_of_interrupted, f"run.resume={copy_of_interrupted}/checkpoints/step-00000009") is not None
    assert "selection starts anew" in capfd.readouterr().err
    report = json.loads((copy_of_interrupted / "report.json").read_text())
    assert report["protocol"]["selected_step"] > 9


def test_a_best_checkpoint_that_broke_during_the_run_is_said_at_its_end(tmp_path, monkeypatch, capfd) -> None:
    folder = tmp_path / "run"
    complete = Checkpointer._complete

    def break_the_best(self, state):
        complete(self, state)
        if state.step == 16 and state.best_step != 16:
            bit_flipped(self.path(state.best_step) / FILES[0])

    monkeypatch.setattr(Checkpointer, "_complete", break_the_best)
    assert main([*WORDS, f"run.dir={folder}"]) == 2
    said = capfd.readouterr().err
    assert (
        "has changed since it was written: its SHA-256 is not that of manifest.json. It was the best one until step 16"
        in said
    )
    assert "Traceback" not in said


def test_the_latest_and_the_best_of_each_are_kept(reference) -> None:
    checkpointer = Checkpointer(reference.folder / "checkpoints", keep=3)
    steps = checkpointer.steps()
    assert steps[-1] == 16
    assert set(steps) == {*steps[-3:]} | {read_state(checkpointer.path(step)).best_step for step in steps[-3:]}


# run.resume


def test_resume_from_a_checkpoint_of_this_run_goes_back_to_it(reference, copy_of_interrupted, capfd) -> None:
    assert run(copy_of_interrupted, f"run.resume={copy_of_interrupted}/checkpoints/step-00000006") is not None
    assert "going back to step 6; later checkpoints are removed: 7, 9" in capfd.readouterr().err
    assert_same(copy_of_interrupted, reference.folder)


def test_resume_from_a_checkpoint_of_another_run(interrupted, tmp_path, capfd) -> None:
    other = interrupted / "checkpoints" / "step-00000009"
    folder = tmp_path / "run"
    words = [*WORDS, f"run.dir={folder}", f"run.resume={other}", "optimizer.lr=5e-4"]
    assert main(words) == 0
    assert f"beginning from {other}" in capfd.readouterr().err
    steps = [event["step"] for event in events(folder) if event["event"] == "train"]
    assert steps == list(range(10, 17))
    report = json.loads((folder / "report.json").read_text())
    assert report["protocol"]["selected_step"] == 14  # not 7, the other run's best
    state = read_state(folder / "checkpoints/step-00000016")
    assert [event.get("split") for event in events(folder)].index("test") == state.metrics_lines
    assert main(words) == 0  # the launcher starts the same command again
    assert "is finished" in capfd.readouterr().err


def test_the_same_command_again_goes_on_and_does_not_begin_anew(interrupted, tmp_path, capfd, monkeypatch) -> None:
    words = [f"run.resume={interrupted}/checkpoints/step-00000006"]
    folder = tmp_path / "run"
    save = Checkpointer.save

    def break_off(self, strategy, state):
        if state.step > 9:
            raise RunError("the test")
        return save(self, strategy, state)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, "save", break_off)
        with pytest.raises(RunError, match="the test"):
            run(folder, *words)
    capfd.readouterr()
    assert run(folder, *words) is not None
    assert f"going on from {folder}/checkpoints/step-00000009" in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["absent", "empty folder", "file", "damaged"])
def test_resume_from_what_is_no_checkpoint_is_refused_before_anything_is_created(
    interrupted, tmp_path, capfd, kind
) -> None:
    path = tmp_path / "there"
    if kind == "empty folder":
        path.mkdir()
    elif kind == "file":
        path.write_text("x")
    elif kind == "damaged":
        shutil.copytree(interrupted / "checkpoints/step-00000009", path)
        bit_flipped(path / "state.json")
    assert main([*WORDS, f"run.dir={tmp_path / 'run'}", f"run.resume={path}"]) == 2
    said = capfd.readouterr().err
    assert "error: run.resume must be auto, never or the folder of a checkpoint" in said
    assert f"got {path}: {path}/{'state.json' if kind == 'damaged' else 'manifest.json'}" in said
    assert "Set run.resume=auto, or name a whole checkpoint." in said
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_another_model_is_refused(interrupted, tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"holds another model: .*expected float32 \[.*got float32 \["):
        run(tmp_path / "run", f"run.resume={interrupted}/checkpoints/step-00000009", "model.intermediate_size=64")


def test_a_run_without_a_checkpoint_yet_starts_from_the_beginning_and_says_so(
    reference, copy_of_interrupted, capfd
) -> None:
    shutil.rmtree(copy_of_interrupted / "checkpoints")
    assert run(copy_of_interrupted) is not None
    assert "has no checkpoint yet; starting from step 0" in capfd.readouterr().err
    assert_same(copy_of_interrupted, reference.folder)


# What must be as it was


@pytest.mark.parametrize("which", ["data", "tokenizer"])
def test_other_data_or_another_tokenizer_is_refused(interrupted, tmp_path, capfd, which) -> None:
    folder = Path(shutil.copytree(interrupted, tmp_path / "run"))
    environment = json.loads((folder / "environment.json").read_text())
    if which == "data":
        environment["data"]["validation"] = "0123456789abcdef"
    else:
        environment["tokenizer"] = "0123456789abcdef"
    (folder / "environment.json").write_text(json.dumps(environment))
    assert main([*WORDS, f"run.dir={folder}"]) == 2
    what = "validation split of fixed" if which == "data" else "tokenizer"
    said = capfd.readouterr().err
    assert f"was started with another {what}: fingerprint 0123456789ab there, " in said
    assert "Go on with the same files and the same version, or choose another run.name." in said


def test_changed_files_of_data_are_refused(tmp_path, capfd) -> None:
    """The files themselves change between two starts."""
    sample = Path(__file__).parents[2] / "xlmrxl_train/data/sample"
    config = tmp_path / "conf/dataset"
    config.mkdir(parents=True)
    (config / "mine.yaml").write_text(
        "name: mine\nkind: sequence_classification\nlanguages: [en]\nlabels: [a, b]\n"
        "columns: {text: text, label: label}\nfiles: {train: [{path: train.jsonl}]}\n"
    )
    lines = [json.dumps({"text": f"word {i}", "label": "ab"[i % 2]}) for i in range(8)]
    data = tmp_path / "train.jsonl"
    data.write_text("\n".join(lines) + "\n")
    words = [
        "--config-dir", str(tmp_path / "conf"), "recipe=xnli", "model=tiny", "dataset=mine", f"data.root={tmp_path}",
        f"tokenizer.path={sample}", f"run.dir={tmp_path / 'run'}", "train.batch_size=4", "evaluate.every=0",
        "evaluate.test=false", "train.max_steps=2",
    ]  # fmt: skip
    assert main(words) == 0
    (tmp_path / "run/report.json").unlink()
    data.write_text("\n".join([*lines[:-1], lines[-1].replace("word", "other")]) + "\n")
    capfd.readouterr()
    assert main(words) == 2
    assert "was started with another train split of mine: fingerprint" in capfd.readouterr().err
    data.write_text("\n".join(lines) + "\n")
    assert main(words) == 0


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"tokenizer": 1}'])
def test_a_damaged_environment_is_refused(interrupted, tmp_path, content) -> None:
    folder = Path(shutil.copytree(interrupted, tmp_path / "run"))
    (folder / "environment.json").write_text(content)
    with pytest.raises(RunError, match="must say which data the run was started with, but cannot be read"):
        RunFolder(folder).check_data(RunFolder(folder).read_config(), {"data": {}, "tokenizer": "x"})


@pytest.mark.parametrize("content", ["", "[1, 2]", "model: 5", "{", "seed: 1\nmodel: [1]"])
def test_a_damaged_config_is_refused(interrupted, tmp_path, capfd, content) -> None:
    folder = Path(shutil.copytree(interrupted, tmp_path / "run"))
    (folder / "config.yaml").write_text(content)
    assert main([*WORDS, f"run.dir={folder}"]) == 2
    said = capfd.readouterr().err
    assert f"{folder}/config.yaml cannot be read" in said
    assert "Restore it, or choose another run.name." in said
    assert "Traceback" not in said


# Locks


def test_a_folder_in_use_is_refused_again_and_again_and_a_killed_process_is_not_in_the_way(
    reference, tmp_path, capfd
) -> None:
    folder = tmp_path / "run"
    process = start(folder)
    assert wait_for(lambda: (folder / "metrics.jsonl").exists() and events(folder), process)
    process.send_signal(signal.SIGSTOP)
    for _ in range(2):  # the first one refused must not open the door for the next
        assert main([*WORDS, f"run.dir={folder}"]) == 2
        said = capfd.readouterr().err
        assert f"run.dir={folder} is in use by process {process.pid} on " in said
        assert "Wait for it, or choose another run.name." in said
    process.kill()
    process.communicate()
    assert (folder / ".lock").exists()
    assert run(folder) is not None
    assert_same(folder, reference.folder)


def test_a_lock_that_was_removed_meanwhile_is_taken_again(tmp_path, monkeypatch) -> None:
    """Its holder ends between our opening and our locking of the file."""
    import fcntl

    first, second, flock = RunFolder(tmp_path), RunFolder(tmp_path), fcntl.flock
    first.acquire()

    def release_first(file, flags):
        first.release()
        return flock(file, flags)

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", release_first)
        second.acquire()
    assert os.path.samestat(os.fstat(second.lock.fileno()), (tmp_path / ".lock").stat())
    with pytest.raises(RunError, match="is in use by"):
        RunFolder(tmp_path).acquire()
    second.release()
    assert not (tmp_path / ".lock").exists()
