"""Read a model's files tensor by tensor: safetensors or torch's zip format, single or sharded, no code executed."""

import json
import logging
import pickle
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from xlmrxl_train.errors import CheckpointError
from xlmrxl_train.model.writing import INDEX_FILE, SINGLE_FILE

_HEAD_PARTS = {
    "lm_head": ("bias", "dense.weight", "dense.bias", "layer_norm.weight", "layer_norm.bias", "decoder.weight",
                "decoder.bias"),
    "classifier": ("weight", "bias", "dense.weight", "dense.bias", "out_proj.weight", "out_proj.bias"),
    "qa_outputs": ("weight", "bias"),
    "roberta.pooler": ("dense.weight", "dense.bias"),
}  # fmt: skip
KNOWN_HEAD_NAMES = frozenset(f"{head}.{part}" for head, parts in _HEAD_PARTS.items() for part in parts)
"""What heads are called in checkpoints; such a tensor may stay unused, any other may not."""
_SAFETENSORS_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
}  # fmt: skip
_BUFFERS = frozenset({"roberta.embeddings.position_ids", "roberta.embeddings.token_type_ids"})
"""Constants that older versions of transformers stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """Which parameters a checkpoint did not hold, and which of its tensors found no place. Names are the model's."""

    new: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    """Head modules that were taken over."""
    misfit: str | None = None
    """Why the checkpoint's head was not, where it has one."""

    def lines(self, folder: Path) -> list[str]:
        """Return what a run says of its head, in a few words."""
        heads = sorted({_part_of(name) for name in self.new})
        said = [f"{', '.join(self.kept)} as in {folder}"] if self.kept else []
        if self.misfit:
            said.append(f"{', '.join(heads)} newly initialised: {self.misfit}")
        elif heads:
            said.append(f"{', '.join(heads)} newly initialised: {folder} holds none")
        return said

    def log(self, logger: logging.Logger, folder: Path) -> None:
        """Say what is new and what is unused; say nothing when all fitted."""
        if self.new:
            logger.warning("%s holds no %s: newly initialised, to be trained", folder, ", ".join(self.new))
        if self.unused:
            logger.info("%s: unused head tensors: %s", folder, ", ".join(self.unused))


def _part_of(parameter: str) -> str:
    """Return what people call the part of a model that a new parameter belongs to."""
    if ".crossattention." in parameter:
        return "cross-attention"
    return parameter.removeprefix("decoder.").removeprefix("roberta.").split(".")[0]


class CheckpointReader(Protocol):
    """Tensors by name; shapes are known without reading the data."""

    shapes: dict[str, tuple[int, ...]]

    def read(self, name: str) -> Tensor:
        """Return a tensor on the CPU, perhaps mapped from the file: copy what must outlive it."""

    def read_part(self, name: str, start: int, count: int) -> Tensor:
        """Return elements [start, start + count) of the flattened tensor, reading no other bytes of its file."""

    def file_of(self, name: str) -> Path:
        """Return the file that holds the tensor."""


class SafetensorsReader:
    """Read safetensors files."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._files: dict[str, Path] = {}
        self._handles: dict[Path, Any] = {}
        self._begins: dict[str, int] = {}  # where a tensor's bytes are in its file
        for path in files:
            try:
                handle: Any = safe_open(str(path), framework="pt", device="cpu")  # checks sizes and the header
                self._handles[path] = handle
                for name in handle.keys():  # noqa: SIM118 - not a mapping
                    self.shapes[name] = tuple(handle.get_slice(name).get_shape())
                    self._files[name] = path
                with path.open("rb") as file:
                    header_size = int.from_bytes(file.read(8), "little")
                    header = json.loads(file.read(header_size))
                for name in handle.keys():  # noqa: SIM118
                    self._begins[name] = 8 + header_size + header[name]["data_offsets"][0]
            except (SafetensorError, OSError, ValueError) as error:
                raise _damaged(path, "safetensors", error) from error

    def read(self, name: str) -> Tensor:
        """Return a tensor mapped from the file."""
        try:
            tensor: Tensor = self._handles[self._files[name]].get_tensor(name)
        except (SafetensorError, OSError, ValueError) as error:
            raise _damaged(self._files[name], "safetensors", error) from error
        return tensor

    def read_part(self, name: str, start: int, count: int) -> Tensor:
        """Return some elements in memory of their own: a mapping would count every page of the file that it touches."""
        path = self._files[name]
        dtype = _SAFETENSORS_DTYPES.get(self._handles[path].get_slice(name).get_dtype())
        if dtype is None:
            return self.read(name).flatten()[start : start + count]
        part = torch.empty(count, dtype=dtype)
        if not count:
            return part
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(self._begins[name] + start * dtype.itemsize)
                buffer, done = part.view(torch.uint8).numpy().data, 0
                while done < part.nbytes:
                    read = file.readinto(buffer[done:])
                    if not read:
                        raise ValueError(f"it ends within {name}")
                    done += read
        except (OSError, ValueError) as error:
            raise _damaged(path, "safetensors", error) from error
        return part

    def file_of(self, name: str) -> Path:
        """Return the file that holds the tensor."""
        return self._files[name]

    def metadata(self, path: Path) -> dict[str, str]:
        """Return the words that one of the files has beside its tensors."""
        return dict(self._handles[path].metadata() or {})


class TorchReader:
    """Read torch.save files, with torch's restricted unpickler: no code in them is executed."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._tensors: dict[str, Tensor] = {}
        self._files: dict[str, Path] = {}
        for path in files:
            content = load_restricted(path)
            if not isinstance(content, Mapping) or not all(
                isinstance(name, str) and isinstance(value, Tensor) and _is_plain(value)
                for name, value in content.items()
            ):
                raise CheckpointError(f"{path} must hold a dictionary of tensors. Save model.state_dict() alone.")
            self._tensors.update(content)
            self._files.update(dict.fromkeys(content, path))
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}

    def read(self, name: str) -> Tensor:
        """Return a tensor mapped from the file."""
        return self._tensors[name]

    def read_part(self, name: str, start: int, count: int) -> Tensor:
        """Return some elements, mapped from the file."""
        return self._tensors[name].flatten()[start : start + count]

    def file_of(self, name: str) -> Path:
        """Return the file that holds the tensor."""
        return self._files[name]


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor has numbers, and one for each place: neither sparse nor on the meta device."""
    return tensor.device.type == "cpu" and tensor.layout == torch.strided and not tensor.is_quantized


def load_restricted(path: Path, allowed: Sequence[type] = ()) -> object:
    """Return what torch.save wrote, refusing everything that is not plain data, tensors or `allowed` classes.

    Raises:
        CheckpointError: The file is missing, damaged, or names other classes or functions.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist. Check the path.")
    with path.open("rb") as file:
        if file.read(1) not in (b"P", b"\x80"):  # a zip archive, or an older bare pickle
            raise _damaged(path, "a torch file", ValueError("it begins like neither a zip archive nor a pickle"))
    try:
        with torch.serialization.safe_globals(list(allowed)), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path, map_location="cpu", mmap=zipfile.is_zipfile(path), weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} must hold tensors and plain data only, got a pickle that would run code "
            f"({_reason(error)}). Do not load it; ask its author for safetensors."
        ) from error
    except Exception as error:  # what a damaged pickle raises is not limited to any class
        raise _damaged(path, "a torch file", error) from error


def _reason(error: Exception) -> str:
    for line in str(error).splitlines():
        if "GLOBAL" in line or "Unsupported" in line:
            return line.strip()[:160]
    return str(error).splitlines()[0][:160]


def _damaged(path: Path, kind: str, error: Exception) -> CheckpointError:
    reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
    return CheckpointError(f"{path} must be {kind}, got a damaged or different file ({reason}). Download it again.")


def open_checkpoint(folder: Path) -> CheckpointReader:
    """Find the weights in a model folder: an adapter and its base, safetensors before .bin, one file before shards.

    Raises:
        CheckpointError: There are none, a shard is missing, or a file is damaged.
    """
    if (folder / "adapter_config.json").is_file():
        from xlmrxl_train.model.adapted_weights import AdaptedReader  # late: it opens its base with this function

        return AdaptedReader(folder)
    for single, index, reader in (
        (SINGLE_FILE, INDEX_FILE, SafetensorsReader),
        ("pytorch_model.bin", "pytorch_model.bin.index.json", TorchReader),
    ):
        if (folder / single).is_file():
            return reader([folder / single])
        if (folder / index).is_file():
            return _open_shards(folder / index, reader)
    raise CheckpointError(
        f"{folder} must hold {SINGLE_FILE} or pytorch_model.bin, or shards with their index, got none of them. "
        "Check the path, or download the weights again."
    )


def _open_shards(index: Path, reader: type[SafetensorsReader] | type[TorchReader]) -> CheckpointReader:
    try:
        weight_map: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(weight_map.values()))
        if any(Path(name).name != name or "\0" in name for name in names):
            raise ValueError("it names files of other folders")
        missing = [name for name in names if not (index.parent / name).is_file()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(index, "an index of shards", error) from error
    if missing:
        raise CheckpointError(f"{index} names files that are missing: {', '.join(missing)}. Download them again.")
    opened = reader([index.parent / name for name in names])
    absent = sorted(set(weight_map) - set(opened.shapes))
    if absent:
        raise CheckpointError(f"{index} names tensors that no shard holds: {', '.join(absent)}. Download it again.")
    return opened


def full_names(names: Sequence[str]) -> dict[str, str]:
    """Map the names in a file to the Hub's full names, whether a bare or a task model was saved."""
    bare = not any(name.startswith("roberta.") for name in names)
    starts = ("embeddings.", "encoder.", "pooler.")
    return {name: f"roberta.{name}" if bare and name.startswith(starts) else name for name in names}


def match_weights(
    model: nn.Module, reader: CheckpointReader, *, prefix: str, head_modules: tuple[str, ...], tied: Mapping[str, str],
    ignore_mismatched_sizes: bool = False, misfit: str | None = None,
) -> tuple[dict[str, str], LoadReport]:  # fmt: skip
    """Find the tensor of each parameter, by names and shapes alone.

    Args:
        model: Perhaps on the meta device.
        reader: The checkpoint.
        prefix: "roberta.", or "" when `model` is the bare encoder.
        head_modules: Modules that the checkpoint may lack as a whole.
        tied: Alias -> parameter; a checkpoint may store either.
        ignore_mismatched_sizes: Treat head tensors of another shape as missing.
        misfit: Why the checkpoint's last head module is not this model's, if it is not: its tensors stay unused.

    Returns:
        Parameter -> its tensor's name in the checkpoint, without those that are missing; and what is new or unused.

    Raises:
        CheckpointError: Tensors are missing, unexpected or of another shape; all are listed.
    """
    in_file = {full: name for name, full in full_names(list(reader.shapes)).items()}
    own = {("" if prefix else "roberta.") + name: name for name, _ in model.named_parameters()}
    for alias, name in tied.items():
        if alias in in_file:
            stored = in_file.pop(alias)
            in_file.setdefault(name, stored)
    heads = tuple(("" if prefix else "roberta.") + head + "." for head in head_modules)
    left = {full for full in in_file if misfit and heads and full.startswith(heads[-1])}
    offered = {full: name for full, name in in_file.items() if full not in left}
    plan = _match(model, own, offered, reader, heads, ignore_mismatched_sizes=ignore_mismatched_sizes)
    stored_names = {name: in_file[full] for full, name in own.items() if full in plan.found}
    report = LoadReport(
        new=tuple(name for full, name in own.items() if full not in plan.found),
        unused=tuple(sorted([*plan.unused, *left])),
        kept=tuple(
            module
            for module, head in zip(head_modules, heads, strict=True)
            if (members := {full for full in own if full.startswith(head)}) and members <= plan.found
        ),
        misfit=misfit if left else None,
    )
    return stored_names, report


def read_floating(reader: CheckpointReader, name: str) -> Tensor:
    """Return a tensor of floating-point numbers.

    Raises:
        CheckpointError: It holds others.
    """
    tensor = reader.read(name)
    if not tensor.dtype.is_floating_point:
        raise CheckpointError(
            f"{reader.file_of(name)} must hold {name} as floating-point numbers, got {str(tensor.dtype)[6:]}. "
            "Download it again."
        )
    return tensor


@torch.no_grad()
def load_weights(
    model: nn.Module, reader: CheckpointReader, stored: Mapping[str, str], dtype: torch.dtype | None,
    device: torch.device,
) -> None:  # fmt: skip
    """Fill a model on the meta device; peak memory is one model and one tensor. What is not stored stays undefined.

    Args:
        model: On the meta device; its parameters are replaced.
        reader: The checkpoint.
        stored: Of `match_weights`.
        dtype: Of floating parameters; None keeps the file's.
        device: Of the parameters.
    """
    default = dtype or next((reader.read(name).dtype for name in stored.values()), torch.float32)
    for name, parameter in list(model.named_parameters()):
        if name in stored:
            source = read_floating(reader, stored[name])
            value = torch.empty(source.shape, dtype=dtype or source.dtype, device=device).copy_(source)
        else:
            value = torch.empty(parameter.shape, dtype=default, device=device)
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, nn.Parameter(value, requires_grad=parameter.requires_grad))


@dataclass(slots=True, kw_only=True)
class _Match:
    found: set[str]
    unused: list[str]


def _match(
    model: nn.Module, own: dict[str, str], in_file: dict[str, str], reader: CheckpointReader, heads: tuple[str, ...],
    *, ignore_mismatched_sizes: bool,
) -> _Match:  # fmt: skip
    faults: list[str] = []
    found: set[str] = set()
    replaced: set[str] = set()
    for full, name in own.items():
        if full not in in_file:
            continue
        wanted, got = tuple(model.get_parameter(name).shape), reader.shapes[in_file[full]]
        if wanted == got:
            found.add(full)
        elif ignore_mismatched_sizes and full.startswith(heads):
            replaced.add(full)
        else:
            faults.append(f"  shape: {full} must be {wanted}, got {got} in {reader.file_of(in_file[full])}")
            found.add(full)
    for full in own:
        if full not in found | replaced and not _may_be_new(full, own, found, heads, replaced):
            faults.append(f"  missing: {full}")
    unused = sorted(full for full in in_file if full not in own)
    for full in unused:
        if full not in KNOWN_HEAD_NAMES and full not in _BUFFERS:
            faults.append(f"  unexpected: {full} in {reader.file_of(in_file[full])}")
    if faults:
        folder = next(iter({reader.file_of(name).parent for name in reader.shapes}), Path())
        raise CheckpointError(
            f"{folder} must hold the tensors of {type(model).__name__}, got {len(faults)} faults. Check that "
            "config.json belongs to these weights, or give the right overrides (as num_labels=…):\n" + "\n".join(faults)
        )
    return _Match(found=found, unused=[full for full in unused if full in KNOWN_HEAD_NAMES])


def _may_be_new(full: str, own: dict[str, str], found: set[str], heads: tuple[str, ...], replaced: set[str]) -> bool:
    """Allow a head, or all cross-attention, to be missing as a whole, but not in part."""
    for head in heads:
        if full.startswith(head):
            members = {name for name in own if name.startswith(head)}
            return not members & found or bool(members & replaced)
    return ".crossattention." in full and not any(".crossattention." in name for name in found)
