"""One uninterrupted run that every interrupted one is compared with."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from jobs import run

from xlmrxl_train.training.checkpoint import Checkpointer


@dataclass
class Reference:
    folder: Path
    seconds: float  # from config.yaml, written first, to report.json, written last


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """A run that was never interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLMRXL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        folder = tmp_path_factory.mktemp("reference") / "run"
        assert run(folder) is not None
        seconds = (folder / "report.json").stat().st_mtime - (folder / "config.yaml").stat().st_mtime
        return Reference(folder, seconds)


@pytest.fixture(scope="session")
def interrupted(tmp_path_factory: pytest.TempPathFactory, reference: Reference) -> Path:
    """A run that broke off after step 11: checkpoints of 6 and 9, and of 7, the best."""
    folder = tmp_path_factory.mktemp("interrupted") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLMRXL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        saved = Checkpointer.save

        def break_off(self, strategy, state):
            if state.step > 9:
                raise OSError("the test")
            return saved(self, strategy, state)

        patch.setattr(Checkpointer, "save", break_off)
        with pytest.raises(OSError, match="the test"):
            run(folder)
    return folder


@pytest.fixture
def copy_of_interrupted(interrupted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(interrupted, tmp_path / "run"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """A real file system of a given size, which fills up or is read-only; needs the right to mount."""
    mounted: list[Path] = []

    def mount(options: str, folder: Path | None = None) -> Path:
        where = folder or tmp_path / f"disk-{len(mounted)}"
        where.mkdir(exist_ok=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(where)], capture_output=True)
        if done.returncode:
            pytest.skip("mounting a file system needs root")
        if folder is None:
            mounted.append(where)
        return where

    yield mount
    for where in mounted:
        subprocess.run(["umount", "--lazy", str(where)], check=True)
