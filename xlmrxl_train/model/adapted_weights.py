"""A folder with an adapter in peft's format, read as the weights of its base with the adapter added.

Nothing here needs peft: an adapter is two small matrices per large one, and modules that were trained whole.

Suffixes: N output features (some of them), K input features, R rank.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xlmrxl_train.errors import CheckpointError
from xlmrxl_train.model.rounded_linear import rounded, unrounded
from xlmrxl_train.model.weights import SafetensorsReader, full_names, open_checkpoint

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What peft puts before the names of a model."""
PARTS = ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector")
BASE_WEIGHTS = "base_weights"
"""The entry of the file's metadata that says how the base was rounded while the adapter was trained."""
_PLAIN = {"bias": "none", "rank_pattern": {}, "alpha_pattern": {}, "fan_in_fan_out": False, "layer_replication": None,
          "lora_bias": False, "trainable_token_indices": None, "target_parameters": None, "use_bdlora": None,
          "use_qalora": False, "arrow_config": None, "kasa_config": None, "velora_config": None,
          "monteclora_config": None, "alora_invocation_tokens": None}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Adapter:
    """What is added to one matrix: scale x B x A, and with a magnitude every row's length is then set to it."""

    a_RK: Tensor
    b_NR: Tensor
    scale: float
    magnitude_N: Tensor | None = None

    def added_to(self, weight_NK: Tensor) -> Tensor:
        """Return the sum, float32."""
        sum_NK: Tensor = torch.addmm(weight_NK.float(), self.b_NR.float(), self.a_RK.float(), alpha=self.scale)
        if self.magnitude_N is None:
            return sum_NK
        lengths_N: Tensor = torch.linalg.norm(sum_NK, dim=1)
        return sum_NK * (self.magnitude_N.float() / lengths_N)[:, None]


class AdaptedReader:
    """A `CheckpointReader` of the sum, one matrix in memory at a time. Names are the Hub's full ones."""

    def __init__(self, folder: Path) -> None:
        """Open the adapter and its base.

        Raises:
            CheckpointError: Files are missing or damaged, or the adapter is of a kind that is not read here.
            ConfigError: The base is not there.
        """
        self.folder = folder
        self.values = _read_config(folder / ADAPTER_CONFIG)
        self._adapter = SafetensorsReader([folder / ADAPTER_WEIGHTS])
        self._kind = self._adapter.metadata(folder / ADAPTER_WEIGHTS).get(BASE_WEIGHTS)
        self._base = open_checkpoint(_base_of(self.values, folder))
        in_base = {full: name for name, full in full_names(list(self._base.shapes)).items()}
        in_adapter = {
            full: PREFIX + name
            for name, full in full_names([name.removeprefix(PREFIX) for name in self._adapter.shapes]).items()
        }
        self._names = in_base
        self._whole = {full: name for full, name in in_adapter.items() if not full.endswith(PARTS)}
        self._adapted: dict[str, dict[str, str]] = {}  # matrix -> part -> its name in the file
        for full, name in in_adapter.items():
            for part in PARTS:
                if full.endswith(f".{part}"):
                    self._adapted.setdefault(f"{full.removesuffix(part)}weight", {})[part] = name
        self.shapes = {full: self._base.shapes[name] for full, name in in_base.items()}
        self.shapes |= {full: self._adapter.shapes[name] for full, name in self._whole.items()}
        self._check()
        self._summed = lru_cache(maxsize=1)(self._sum)  # parts of a matrix are asked for one after the other

    def read(self, name: str) -> Tensor:
        """Return a tensor; one that the adapter changes is float32."""
        if name in self._whole:
            return self._adapter.read(self._whole[name])
        return self._summed(name) if name in self._adapted else self._base.read(self._names[name])

    def read_part(self, name: str, start: int, count: int) -> Tensor:
        """Return some elements."""
        if name in self._whole:
            return self._adapter.read_part(self._whole[name], start, count)
        if name in self._adapted:
            return self._summed(name).view(-1)[start : start + count]
        return self._base.read_part(self._names[name], start, count)

    def file_of(self, name: str) -> Path:
        """Return the file that holds the tensor, or what is added to it."""
        if name in self._whole or name in self._adapted:
            return self.folder / ADAPTER_WEIGHTS
        return self._base.file_of(self._names[name])

    def _sum(self, name: str) -> Tensor:
        parts = {part: self._adapter.read(file_name) for part, file_name in self._adapted[name].items()}
        a_RK, values = parts[PARTS[0]], self.values
        adapter = Adapter(
            a_RK=a_RK,
            b_NR=parts[PARTS[1]],
            scale=values["lora_alpha"] / (sqrt(len(a_RK)) if values.get("use_rslora") else len(a_RK)),
            magnitude_N=parts.get(PARTS[2]),
        )
        weight = self._base.read(self._names[name])
        if self._kind is not None:
            weight = unrounded(rounded(weight, self._kind, torch.device("cpu")))
        return adapter.added_to(weight)

    def _check(self) -> None:
        """Make sure that every part of the adapter has its place.

        Raises:
            CheckpointError: It names the first that has none.
        """
        wanted = PARTS if self.values.get("use_dora") else PARTS[:2]
        for name, parts in self._adapted.items():
            shape = self.shapes.get(name)
            rank = self._adapter.shapes[parts[PARTS[0]]][0] if PARTS[0] in parts else 0
            if shape is None or len(shape) != 2 or set(parts) != set(wanted) or not rank:
                found = f"has {', '.join(parts)}" if shape else "is not there"
                raise CheckpointError(
                    f"{self.folder / ADAPTER_WEIGHTS} must hold {', '.join(wanted)} for matrices of its base, but "
                    f"{name} {found}. Give the base that it was trained on, or restore the folder."
                )
            for part, expected in zip(PARTS, ((rank, shape[1]), (shape[0], rank), shape[:1]), strict=True):
                if part in parts and self._adapter.shapes[parts[part]] != expected:
                    raise CheckpointError(
                        f"{self.folder / ADAPTER_WEIGHTS} must hold {parts[part]} of shape {expected}, got "
                        f"{self._adapter.shapes[parts[part]]}. Give the base that it was trained on."
                    )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError(f"{values!r:.40}")
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} must be the configuration of an adapter, got {error}. Restore it.") from None
    unread = [key for key, plain in _PLAIN.items() if values.get(key) not in (plain, None)]
    if values.get("init_lora_weights") not in (True, False, None, "gaussian"):
        unread.append("init_lora_weights")  # others change the base
    if values.get("peft_type") != "LORA" or unread or not isinstance(values.get("lora_alpha"), int | float):
        raise CheckpointError(
            f"{path} must be of LoRA, DoRA or rsLoRA in their plain form, got peft_type {values.get('peft_type')}"
            f"{f' with {unread[0]}={values[unread[0]]!r:.40}' if unread else ''}. Merge it with peft, and give that."
        )
    return values


def _base_of(values: dict[str, Any], folder: Path) -> Path:
    from xlmrxl_train.hub import resolve_model  # late: reading a folder needs no Hub client

    base, revision = values.get("base_model_name_or_path"), values.get("revision")
    if not isinstance(base, str) or not base or not isinstance(revision, str | None):
        raise CheckpointError(
            f"{folder / ADAPTER_CONFIG} must name its base in base_model_name_or_path, got {base!r:.80}. Write it in."
        )
    return resolve_model(base, revision, key=f"base_model_name_or_path of {folder / ADAPTER_CONFIG}")
