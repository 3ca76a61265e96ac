"""Training state on disk: complete or invisible, verified before it is used.

checkpoints/step-00000100/
  tensors/        every weight and its two moments under the model's names (parallel/tensor_files.py)
  state.json      counters (training/state.py)
  manifest.json   size and SHA-256 of every other file
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from xlmrxl_train.errors import CheckpointError
from xlmrxl_train.parallel import Strategy
from xlmrxl_train.parallel.tensor_files import load_tensors, save_tensors
from xlmrxl_train.training.state import TrainState

MANIFEST = "manifest.json"


class Checkpointer:
    """Writes and reads the checkpoints of one run."""

    def __init__(self, folder: Path, *, keep: int) -> None:
        """Use `folder`, keeping the latest `keep` checkpoints and the best one."""
        self.folder = folder
        self.keep = keep

    def path(self, step: int) -> Path:
        """Return the folder of the checkpoint after `step` optimizer steps."""
        return self.folder / f"step-{step:08d}"

    def save(self, strategy: Strategy, state: TrainState) -> Path:
        """Write a checkpoint from all ranks, then remove those that are neither among the latest nor the best.

        Raises:
            CheckpointError: The folder cannot be written; what was there before is untouched.
        """
        world, final = strategy.world, self.path(state.step)
        partial = self.folder / f".{final.name}.partial"
        try:
            if world.is_first:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
            world.barrier()
            save_tensors(partial / "tensors", strategy.state_dict(), world)
            if world.is_first:
                (partial / "state.json").write_text(json.dumps(state.to_dict(), indent=1), encoding="utf-8")
                manifest = {str(file.relative_to(partial)): _describe(file) for file in _files(partial)}
                (partial / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
                for path in [*_files(partial), partial / "tensors", partial]:
                    _sync(path)
                shutil.rmtree(final, ignore_errors=True)
                partial.rename(final)
                _sync(self.folder)
                self._prune(state)
        except OSError as error:
            raise CheckpointError(
                f"{partial} could not be written: {error.strerror or error}. Earlier checkpoints are intact. "
                "Free space or choose another run.dir, then start the same command again."
            ) from error
        world.barrier()
        return final

    def steps(self) -> list[int]:
        """Return the steps whose checkpoints are there, ascending."""
        return sorted(int(path.name.removeprefix("step-")) for path in self.folder.glob("step-" + "[0-9]" * 8))

    def latest(self) -> tuple[Path | None, list[str]]:
        """Return the last checkpoint that is whole, and what is wrong with later ones."""
        faults: list[str] = []
        for step in reversed(self.steps()):
            try:
                verify(self.path(step))
            except CheckpointError as error:
                faults.append(str(error))
            else:
                return self.path(step), faults
        return None, faults

    def _prune(self, state: TrainState) -> None:
        kept = {*self.steps()[-self.keep :], state.best_step}
        for step in self.steps():
            if step not in kept:
                # Renamed first, so that a half-removed folder is never taken for a checkpoint.
                removed = self.folder / f".step-{step:08d}.removed"
                self.path(step).rename(removed)
                shutil.rmtree(removed, ignore_errors=True)


def load(path: Path, strategy: Strategy) -> TrainState:
    """Take over weights, moments and counters of a checkpoint, whatever number of ranks wrote it.

    Raises:
        CheckpointError: It is not a whole checkpoint, or is one of another model.
    """
    strategy.world.first(lambda: verify(path))
    try:
        state = TrainState(**json.loads((path / "state.json").read_text(encoding="utf-8")))
    except TypeError as error:
        raise CheckpointError(
            f"{path / 'state.json'} is of another version: {error}. Resume with the version that wrote it."
        ) from None
    tensors = strategy.state_dict()
    load_tensors(path / "tensors", tensors, strategy.world)
    strategy.load_state_dict(tensors, state.updates)
    return state


def verify(path: Path) -> None:
    """Compare every file of a checkpoint with its manifest.

    Raises:
        CheckpointError: It names the first file that is missing, of another size or of other content.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        expected = {name: (entry["bytes"], entry["sha256"]) for name, entry in manifest.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path / MANIFEST} must list the checkpoint's files, got {error}.") from None
    for name, (size, digest) in {"state.json": (None, None), **expected}.items():
        file = path / name
        if not file.is_file():
            raise CheckpointError(f"{file} is missing.")
        if size is not None and file.stat().st_size != size:
            raise CheckpointError(f"{file} must have {size} bytes, got {file.stat().st_size}.")
        if digest is not None and _sha256(file) != digest:
            raise CheckpointError(f"{file} has changed since it was written (its SHA-256 differs).")


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _describe(file: Path) -> dict[str, int | str]:
    return {"bytes": file.stat().st_size, "sha256": _sha256(file)}


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Make a file or folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
