"""Full and read-only disks, paths that cannot be: the message names the path, the previous state is intact."""

import os
import resource
from pathlib import Path

import pytest
from jobs import WORDS, assert_same, events, run

from xlmrxl_train import run as composition
from xlmrxl_train.cli import main
from xlmrxl_train.errors import RunError
from xlmrxl_train.parallel.single import SingleStrategy
from xlmrxl_train.stop import StopRequest
from xlmrxl_train.training.checkpoint import Checkpointer, verify
from xlmrxl_train.training.folder import RunFolder


def fill(disk: Path) -> None:
    """Take the last byte of a file system."""
    with (disk / "filler").open("ab", buffering=0) as filler:
        for size in (1 << 16, 1):
            try:
                while True:
                    filler.write(b"x" * size)
            except OSError:
                continue


def refused(capfd, *words: str) -> str:
    """Run the command, which must end with 2 and without a traceback; return what it said."""
    capfd.readouterr()
    assert main([*WORDS, *words]) == 2
    said = capfd.readouterr().err
    assert "Traceback" not in said
    return said


def test_a_disk_that_fills_up_while_a_checkpoint_is_written(reference, small_disk, capfd) -> None:
    last = reference.folder / "checkpoints/step-00000016"
    checkpoint_bytes = sum(file.stat().st_size for file in last.rglob("*") if file.is_file())
    disk = small_disk(f"size={int(3.7 * checkpoint_bytes)}")  # room for three
    folder = disk / "run"
    said = refused(capfd, f"run.dir={folder}")
    assert f"error: {folder}/checkpoints/step-00000009 could not be written: No space left on device. " in said
    assert "Earlier checkpoints are intact. Free space or mend its permissions, then start the same command" in said
    checkpointer = Checkpointer(folder / "checkpoints", keep=1)
    assert checkpointer.steps() == [3, 6, 7]
    assert sorted(path.name for path in checkpointer.folder.iterdir()) == [f"step-{n:08d}" for n in (3, 6, 7)]
    for step in checkpointer.steps():
        verify(checkpointer.path(step))
    small_disk("remount,size=64m", disk)
    assert run(folder) is not None
    assert_same(folder, reference.folder)


def test_a_file_system_with_a_limit_for_files(tmp_path, capfd) -> None:
    """Needs no right to mount."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        said = refused(capfd, f"run.dir={tmp_path / 'run'}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "checkpoints/step-00000003 could not be written: File too large." in said
    assert not list((tmp_path / "run/checkpoints").iterdir())


def after(monkeypatch, owner, name: str, call: int, then) -> None:
    """Do something after the `call`-th call of a real function; -1: after that which saved the last step."""
    function, calls = getattr(owner, name), 0

    def wrapped(*args, **kwargs):
        nonlocal calls
        calls += 1
        result = function(*args, **kwargs)
        if calls == call or (call == -1 and args[1].step == 16):
            then()
        return result

    monkeypatch.setattr(owner, name, wrapped)


# Fill the disk after the n-th call of a function -> the file that cannot be written then.
FULL = {
    "config.yaml": (RunFolder, "acquire", 1, "config.yaml"),
    "environment.json": (SingleStrategy, "__init__", 1, "environment.json"),
    "model/": (Checkpointer, "_complete", -1, "model"),
    "predictions/": (composition, "export", 1, "predictions"),
    "report": (composition, "submit", 1, "report.json"),
    "stopped.json": (Checkpointer, "_complete", 2, "stopped.json"),
}


@pytest.mark.parametrize("name", FULL)
def test_a_full_disk_where_something_else_is_written(reference, small_disk, tmp_path, monkeypatch, capfd, name) -> None:
    owner, function, call, path = FULL[name]
    disk = small_disk("size=64m")
    folder = disk / "run"
    with monkeypatch.context() as patch:
        after(patch, owner, function, call, lambda: fill(disk))
        if name == "stopped.json":
            patch.setattr(StopRequest, "__call__", lambda self: (disk / "filler").exists() or asked(folder))
        said = refused(capfd, f"run.dir={folder}")
    assert "No space left on device" in said
    assert f"error: {folder / path} " in said
    assert ("could not be written" in said) or ("cannot be written" in said)
    (disk / "filler").unlink()
    assert run(folder) is not None
    assert_same(folder, reference.folder)


def asked(folder: Path) -> bool:
    """Whether to stop: once the first checkpoint is there, so that the second is the one of the stop."""
    return (folder / "checkpoints/step-00000003").exists()


def test_a_disk_that_fills_up_while_metrics_are_written(small_disk, monkeypatch, capfd) -> None:
    disk = small_disk("size=64m")
    words = [f"run.dir={disk / 'run'}", "train.epochs=30", "evaluate.every=0", "evaluate.test=false"]
    with monkeypatch.context() as patch:
        after(patch, SingleStrategy, "step", 4, lambda: fill(disk))
        said = refused(capfd, *words, "train.checkpoint_every=100")
    assert f"error: {disk}/run/metrics.jsonl could not be written: No space left on device. " in said
    assert "The checkpoints are intact. Free space or mend its permissions, then start the same command" in said
    (disk / "filler").unlink()
    assert main([*WORDS, *words]) == 0
    assert [event["step"] for event in events(disk / "run")] == list(range(1, 61))


@pytest.mark.parametrize("where", ["a file", "below a file", "a read-only disk", "no permission"])
def test_a_run_folder_that_cannot_be(tmp_path, small_disk, capfd, where) -> None:
    if where == "a file":
        folder, reason = tmp_path / "run", "File exists"
        folder.write_text("mine")
    elif where == "below a file":
        folder, reason = tmp_path / "file" / "run", "Not a directory"
        (tmp_path / "file").write_text("mine")
    elif where == "a read-only disk":
        folder, reason = small_disk("ro,size=1m") / "run", "Read-only file system"
    else:
        if os.geteuid() == 0:
            pytest.skip("root may write everywhere")
        (tmp_path / "closed").mkdir(mode=0o500)
        folder, reason = tmp_path / "closed" / "run", "Permission denied"
    said = refused(capfd, f"run.dir={folder}")
    assert f"error: run.dir={folder} must be a folder that can be written: {reason} (" in said
    assert "Choose another run.dir, or mend its permissions and free space." in said
    if where.endswith("file"):
        assert [path.name for path in tmp_path.iterdir()] in (["run"], ["file"])


def test_a_disk_that_becomes_read_only(reference, small_disk, monkeypatch, capfd) -> None:
    """What a file system does after an error of the device; metrics.jsonl is on another one."""
    disk = small_disk("size=64m")
    folder = disk / "run"
    (folder / "checkpoints").mkdir(parents=True)
    checkpoints = small_disk("size=64m")
    (folder / "checkpoints").rmdir()
    (folder / "checkpoints").symlink_to(checkpoints)
    with monkeypatch.context() as patch:
        after(patch, Checkpointer, "_complete", 2, lambda: small_disk("remount,ro", checkpoints))
        said = refused(capfd, f"run.dir={folder}")
    assert f"{folder}/checkpoints/step-00000007 could not be written: Read-only file system." in said
    small_disk("remount,rw", checkpoints)
    assert run(folder) is not None
    assert events(folder) == events(reference.folder)


@pytest.mark.parametrize("where", ["full", "read-only", "below a file"])
def test_a_token_cache_that_cannot_be_written(tmp_path, small_disk, capfd, where) -> None:
    if where == "below a file":
        (tmp_path / "file").write_text("")
        cache, reason = tmp_path / "file" / "cache", "Not a directory"
    elif where == "read-only":
        cache, reason = small_disk("ro,size=1m") / "cache", "Read-only file system"
    else:
        cache, reason = small_disk("size=16k") / "cache", "No space left on device"
    said = refused(capfd, f"run.dir={tmp_path / 'run'}", f"data.cache={cache}")
    assert f"error: data.cache must be a folder that can be written, got {cache} (" in said
    assert reason in said
    assert "Set data.cache or $XLMRXL_CACHE, or make room there." in said
    assert not (tmp_path / "run").exists()
    if where == "full":
        assert not list(cache.glob("*.tmp"))  # tables that were whole before may stay


def test_the_report_of_an_evaluation_names_its_folder(copy_of_interrupted, monkeypatch) -> None:
    assert run(copy_of_interrupted) is not None
    (copy_of_interrupted / "evaluation").write_text("in the way")
    with pytest.raises(RunError, match=r"/run/evaluation/fixed could not be written: Not a directory\. "):
        composition.evaluate(copy_of_interrupted)
