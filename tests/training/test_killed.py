"""Killed at any moment, started again: the same losses to the bit, the same report, the same model."""

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from jobs import assert_same, events, run, start, wait_for

from xlmrxl_train.training.folder import RunFolder

SEED = int(os.environ.get("XLMRXL_TEST_SEED", "20240607"))


def kill(process) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)


def random_moments(count: int) -> list[float]:
    """Return shares of the time from the first file to the last, one in each of `count` equal parts of it."""
    draw = random.Random(SEED + count)
    return [round((part + draw.random()) / count, 4) for part in range(count)]


def killed_and_resumed(reference, folder: Path, share: float) -> None:
    for attempt in range(4):
        process = start(folder)
        wait_for((folder / "config.yaml").exists, process)
        time.sleep(share * reference.seconds / 2**attempt)
        kill(process)
        if not (folder / "report.json").exists():
            break
        shutil.rmtree(folder)  # this time the machine was faster than when it was measured
    there = len((folder / "metrics.jsonl").read_bytes().splitlines()) if (folder / "metrics.jsonl").exists() else 0
    newest = max((path.stat().st_mtime, str(path.relative_to(folder))) for path in folder.rglob("*"))[1]
    print(
        f"seed {SEED}: killed at {share:.4f} of {reference.seconds:.2f} s, attempt {attempt}; {there} metrics, {newest}"
    )
    run(folder)
    assert_same(folder, reference.folder)


@pytest.mark.slow
@pytest.mark.parametrize("share", random_moments(20))
def test_killed_at_many_random_moments(reference, tmp_path, share) -> None:
    killed_and_resumed(reference, tmp_path / "run", share)


def hidden(folder: Path, pattern: str):
    return lambda: any(folder.glob(pattern))


def has_event(folder: Path, count: int):
    path = folder / "metrics.jsonl"
    return lambda: path.exists() and path.read_bytes().count(b'"evaluate"') >= count


MOMENTS = {
    "writing the first checkpoint": lambda run: hidden(run, "checkpoints/.step-*.partial"),
    "writing a checkpoint's tensors": lambda run: hidden(run, "checkpoints/.step-*.partial/tensors/rank-*"),
    "completing a checkpoint": lambda run: hidden(run, "checkpoints/.step-*.partial/manifest.json"),
    "removing an old checkpoint": lambda run: hidden(run, "checkpoints/.step-*.removed"),
    "within the lines of an evaluation": lambda run: has_event(run, 1),
    "after the last step": lambda run: hidden(run, "checkpoints/step-00000016"),
    "writing model/": lambda run: hidden(run, "model"),
    "writing model/model.safetensors": lambda run: hidden(run, "model/.model.safetensors.tmp-*"),
    "evaluating the test split": lambda run: hidden(run, "model/config.json"),
    "writing the report": lambda run: hidden(run, ".report.*.partial"),
    "between the two reports": lambda run: hidden(run, "report.md"),
}


def killed_on(moments: list[str], reference, folder: Path) -> None:
    """Kill one run at several moments, one after the other; then let it finish."""
    for moment in moments:
        process = start(folder)
        lives = wait_for(MOMENTS[moment](folder), process)
        kill(process)
        finished = (folder / "report.json").exists()
        print(f"killed while {moment}: lived={lives}, finished={finished}, {len(list(folder.rglob('*')))} files")
    run(folder)
    assert_same(folder, reference.folder)


@pytest.mark.slow
def test_killed_again_and_again_while_files_are_written(reference, tmp_path) -> None:
    killed_on(["completing a checkpoint", "writing model/"], reference, tmp_path / "run")


@pytest.mark.parametrize("moment", [
    pytest.param(moment, marks=() if moment == "completing a checkpoint" else pytest.mark.slow) for moment in MOMENTS
])  # fmt: skip
def test_killed_on_each_file(reference, tmp_path, moment) -> None:
    killed_on([moment], reference, tmp_path / "run")


def test_left_overs_are_removed_at_the_next_start(reference, copy_of_interrupted) -> None:
    folder = copy_of_interrupted
    for name in (".step-00000012.partial", ".step-00000003.removed", ".step-00000009.replaced"):
        (folder / "checkpoints" / name / "tensors").mkdir(parents=True)
    # Killed between two renames: the checkpoint that made room comes back.
    (folder / "checkpoints/step-00000006").rename(folder / "checkpoints/.step-00000006.replaced")
    (folder / "model").mkdir()
    for name in (".report.md.partial", ".config.yaml.partial", "metrics.partial", "model/.model.safetensors.tmp-77"):
        (folder / name).write_text("half", encoding="utf-8")
    RunFolder(folder).clean()
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "step-00000006", "step-00000007", "step-00000009",
    ]  # fmt: skip
    run(folder)
    assert_same(folder, reference.folder)


def test_a_half_written_line_of_metrics_is_dropped(reference, copy_of_interrupted) -> None:
    with (copy_of_interrupted / "metrics.jsonl").open("a", encoding="utf-8") as lines:
        lines.write('{"event": "train", "st')
    run(copy_of_interrupted)
    assert events(copy_of_interrupted) == events(reference.folder)
