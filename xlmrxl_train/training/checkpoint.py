"""Training state on disk: complete or invisible, verified before it is used.

checkpoints/step-00000100/
  tensors/        every weight and its two moments under the model's names (parallel/tensor_files.py); an embedding of
                  which some rows are trained in two parts, with the numbers of those rows; of adapters not the weights
                  below them, which stay where model.path says
  state.json      counters (training/state.py)
  manifest.json   size and SHA-256 of every other file
checkpoints/.step-00000100.partial    is being written
checkpoints/.step-00000100.replaced   makes room for the same step, and comes back if that fails
checkpoints/.step-00000100.removed    is being removed
"""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from xlmrxl_train.errors import FROM_FIRST_RANK, CheckpointError
from xlmrxl_train.hashing import sha256
from xlmrxl_train.parallel import Strategy, World
from xlmrxl_train.parallel.tensor_files import INDEX, load_tensors, save_tensors, staged
from xlmrxl_train.progress import progress
from xlmrxl_train.training.background import Background, fits_in_memory
from xlmrxl_train.training.state import TrainState
from xlmrxl_train.training.vocabulary import check_rows, trained_rows

MANIFEST, STATE, TENSORS = "manifest.json", "state.json", "tensors"
ADAPTER_MARK = ".lora_A."  # in the names of peft's adapters of any kind
MAX_JSON_BYTES = 1 << 24  # of manifest.json and state.json, which have a few lines


class Checkpointer:
    """Writes and reads the checkpoints of one run."""

    def __init__(self, folder: Path, *, keep: int, background: bool = False) -> None:
        """Use `folder`, keeping the latest `keep` checkpoints and the best one of each of them.

        Args:
            folder: Of one run.
            keep: At least 1.
            background: `save` returns when tensors are copied to host memory; they are written while training goes on.
        """
        self.folder = folder
        self.keep = keep
        self.writer = Background() if background else None

    def path(self, step: int) -> Path:
        """Return the folder of the checkpoint after `step` optimizer steps."""
        return self.folder / f"step-{step:08d}"

    def save(self, strategy: Strategy, state: TrainState) -> Path:
        """Write a checkpoint from all ranks, then remove those that are neither among the latest nor the best.

        Raises:
            CheckpointError: The folder cannot be written, by whichever rank; what was there before is untouched. Of a
                checkpoint that is written in the background, the next `save` or `wait` raises it.
        """
        self.wait()
        tensors = own_tensors(strategy, strategy.state_dict()) | trained_rows(strategy.model)
        if self.writer is None or not fits_in_memory(tensors, strategy.world):
            return self._write(tensors, state, strategy.world)
        copies, counters, world = staged(tensors), replace(state), self.writer.world(strategy.world)
        self.writer.start(lambda: self._write(copies, counters, world))
        return self.path(state.step)

    def wait(self) -> None:
        """Wait until the last checkpoint is complete.

        Raises:
            CheckpointError: It could not be written.
        """
        if self.writer is not None:
            self.writer.wait()

    def _write(self, tensors: dict[str, torch.Tensor], state: TrainState, world: World) -> Path:
        final, partial = self.path(state.step), self._hidden(state.step, "partial")
        try:
            with progress.doing("saving a checkpoint"):
                world.first(lambda: _make_anew(partial))
                save_tensors(partial / TENSORS, tensors, world)
                world.first(lambda: self._complete(state))
        except OSError as error:
            if world.is_first:
                shutil.rmtree(partial, ignore_errors=True)
            fault = CheckpointError(
                f"{final} could not be written: {error.strerror or error}. Earlier checkpoints are intact. "
                "Free space or mend its permissions, then start the same command again."
            )
            fault.add_note(FROM_FIRST_RANK)
            raise fault from error
        return final

    def steps(self) -> list[int]:
        """Return the steps whose checkpoints are there, ascending."""
        return sorted(int(path.name.removeprefix("step-")) for path in self.folder.glob("step-" + "[0-9]" * 8))

    def latest(self) -> tuple[Path | None, list[str]]:
        """Return the last checkpoint that is whole and so is its best one, and what is wrong with later ones."""
        faults: list[str] = []
        for step in reversed(self.steps()):
            try:
                verify(self.path(step))
                self.verify_best(step)
            except CheckpointError as error:
                faults.append(str(error))
            else:
                return self.path(step), faults
        return None, faults

    def verify_best(self, step: int) -> None:
        """Make sure that the checkpoint which was the best one after `step` steps is there.

        Raises:
            CheckpointError: It is damaged or missing.
        """
        best = read_state(self.path(step)).best_step
        if best not in (None, step):
            try:
                verify(self.path(best))
            except CheckpointError as error:
                raise CheckpointError(
                    f"{error} It was the best one until step {step}. Restore it from a copy, "
                    f"or set run.resume={self.path(step)} to go on without it."
                ) from None

    def clean(self) -> None:
        """Remove what a killed process left half done, and bring back what it was about to replace."""
        for left_over in self.folder.glob(".step-*.replaced"):
            final = self.folder / left_over.name.removeprefix(".").removesuffix(".replaced")
            if not final.exists():
                left_over.rename(final)
        for kind in ("partial", "replaced", "removed"):
            for left_over in self.folder.glob(f".step-*.{kind}"):
                shutil.rmtree(left_over, ignore_errors=True)

    def prune(self) -> None:
        """Remove the checkpoints that are neither among the latest nor the best one of one of these."""
        latest = self.steps()[-self.keep :]
        kept = {*latest, *map(self._best_of, latest)}
        for step in self.steps():
            if step not in kept:
                self._remove(step)

    def remove_after(self, step: int) -> list[int]:
        """Remove the checkpoints after `step`, from which a run that goes back to it will not go on; return them."""
        later = [number for number in self.steps() if number > step]
        for number in later:
            self._remove(number)
        return later

    def _hidden(self, step: int, kind: str) -> Path:
        return self.folder / f".{self.path(step).name}.{kind}"

    def _complete(self, state: TrainState) -> None:
        """Finish what all ranks have written, on rank 0: complete it, give it its name, remove old ones."""
        final, partial = self.path(state.step), self._hidden(state.step, "partial")
        replaced = self._hidden(state.step, "replaced")
        (partial / STATE).write_text(json.dumps(state.to_dict(), indent=1), encoding="utf-8")
        manifest = {file.relative_to(partial).as_posix(): _describe(file) for file in _files(partial)}
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for path in [*_files(partial), partial / TENSORS, partial]:
            _sync(path)
            progress.move()
        if final.exists():  # of a validation that was left, or damaged
            final.rename(replaced)
        partial.rename(final)
        _sync(self.folder)
        shutil.rmtree(replaced, ignore_errors=True)
        self.prune()

    def _best_of(self, step: int) -> int | None:
        try:
            return read_state(self.path(step)).best_step
        except CheckpointError:  # damaged; said when the run goes on
            return None

    def _remove(self, step: int) -> None:
        # Renamed first, so that a half-removed folder is never taken for a checkpoint.
        removed = self._hidden(step, "removed")
        shutil.rmtree(removed, ignore_errors=True)
        self.path(step).rename(removed)
        shutil.rmtree(removed, ignore_errors=True)


def load(path: Path, strategy: Strategy) -> TrainState:
    """Take over weights, moments and counters of a checkpoint that was verified, whatever number of ranks wrote it.

    Raises:
        CheckpointError: It is one of another model or version, or trains other rows of the vocabulary; on every rank.
    """
    state = strategy.world.first(lambda: read_state(path))
    strategy.world.first(lambda: check_rows(path / TENSORS, strategy.model))
    tensors = strategy.state_dict()
    load_tensors(path / TENSORS, own_tensors(strategy, tensors), strategy.world)
    strategy.load_state_dict(tensors, state.updates)
    return state


def own_tensors(strategy: Strategy, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return those of a strategy's tensors that its checkpoints hold."""
    if not any(ADAPTER_MARK in name for name in strategy.trainable):
        return tensors
    below = {f"model.{name}" for name in set(strategy.shapes) - set(strategy.trainable)}
    return {name: tensor for name, tensor in tensors.items() if name not in below}


def read_state(path: Path) -> TrainState:
    """Return the counters of a checkpoint.

    Raises:
        CheckpointError: state.json is not what this version writes.
    """
    values = _read_json(path / STATE)
    kinds: dict[str, Any] = {field.name: field.type for field in fields(TrainState)}
    wrong = [f"{name} is absent" for name in kinds if name not in values]
    wrong += [f"{name} is unknown" for name in values if name not in kinds]
    wrong += [
        f"{name} is {values[name]!r:.40}"
        for name, kind in kinds.items()
        if name in values and not _is(kind, values[name])
    ]
    if wrong:
        raise CheckpointError(
            f"{path / STATE} must hold the counters of this version, but {', '.join(wrong)}. "
            "Resume with the version that wrote it."
        )
    return TrainState(**values)


def verify(path: Path) -> None:
    """Compare every file of a checkpoint with its manifest.

    Raises:
        CheckpointError: It names the first file that is missing, of another size or of other content.
    """
    entries = _read_json(path / MANIFEST)
    if lacking := {STATE, f"{TENSORS}/{INDEX}"} - set(entries):
        raise CheckpointError(f"{path / MANIFEST} must list the checkpoint's files, but lacks {sorted(lacking)[0]}.")
    for name, entry in entries.items():
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts:
            raise CheckpointError(f"{path / MANIFEST} must list files of its folder, got {name!r}.")
        if not isinstance(entry, dict) or not {"bytes", "sha256"} <= set(entry):
            raise CheckpointError(f"{path / MANIFEST} must hold bytes and sha256 of {name}, got {entry!r:.40}.")
        _compare(path / name, entry)


def _compare(file: Path, expected: dict[str, Any]) -> None:
    try:
        if not file.is_file():
            raise CheckpointError(f"{file} is missing.")
        if file.stat().st_size != expected["bytes"]:
            raise CheckpointError(f"{file} must have {expected['bytes']} bytes, got {file.stat().st_size}.")
        if _sha256(file) != expected["sha256"]:
            raise CheckpointError(f"{file} has changed since it was written: its SHA-256 is not that of {MANIFEST}.")
    except (OSError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{file} cannot be read: {error}.") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError(f"{path.stat().st_size:,} bytes")
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError(f"{values!r:.40}")
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing.") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(f"{path} must be a JSON object, got {reason}.") from None
    return values


def _is(kind: Any, value: object) -> bool:
    """Return whether a value of state.json is of a counter's type: int, float, or one of them or None."""
    if value is None or isinstance(value, bool):
        return value is None and kind not in (int, float)
    whole = isinstance(value, int) and value >= 0
    return whole if kind in (int, int | None) else isinstance(value, int | float)


def _make_anew(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _describe(file: Path) -> dict[str, int | str]:
    return {"bytes": file.stat().st_size, "sha256": _sha256(file)}


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return sha256(stream)


def _sync(path: Path) -> None:
    """Make a file or folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
