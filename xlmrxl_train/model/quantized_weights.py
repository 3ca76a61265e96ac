"""Weights as small integers with scales: in a form that files hold, and as the tensors that torchao computes with.

The form in files is the same for every device; the packed one is not, so it is made where the weight goes to, and taken
apart again where it is saved.

Suffixes: N output features or rows, K input features, G groups of a row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from xlmrxl_train.model.heads import VocabularyProjection

INT8_PARTS = ("qdata", "scale")
INT4_PARTS = ("qdata", "scale", "zero_point")
_LEVELS = 15  # int4: 0 to 15, of which 8 is the middle
_MIDDLE = 8
_CUDA_TILE_N, _CUDA_TILE_K, _INNER_TILES = 8, 1024, 8  # what the GPU's kernel pads to
_ROUNDED_ELEMENTS = 2**20  # rounded at a time: the float32 copies are small
_UNPACKED_ROWS = 512  # read at a time
_CHUNK_ELEMENTS = 2**26  # logits held at once by a quantized vocabulary's loss


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class IntegerWeight:
    """A quantized matrix. int8: one scale per row, w = q * scale. int4: per group, w = (q - 8) * scale + zero_point."""

    qdata: Tensor
    """[N, K] int8; or [N, K / 2] uint8, two values per byte, the earlier one in the higher half."""
    scale: Tensor
    """[N, 1] float32, or [N, G] bfloat16."""
    zero_point: Tensor | None = None
    """[N, G] bfloat16 of int4."""

    @classmethod
    def rounded(cls, weight_NK: Tensor, kind: str, group_size: int) -> Self:
        """Round a matrix to int8 or int4, some rows at a time: they do not depend on each other.

        Args:
            weight_NK: In any floating dtype.
            kind: int8 or int4.
            group_size: Input features that share a scale, of int4.
        """
        rows = max(1, _ROUNDED_ELEMENTS // weight_NK.shape[1])
        pieces = [cls._int8(part) if kind == "int8" else cls._int4(part, group_size) for part in weight_NK.split(rows)]
        names = pieces[0].parts
        return cls(**{name: torch.cat([piece.parts[name] for piece in pieces]) for name in names})

    @classmethod
    def _int8(cls, weight_NK: Tensor) -> Self:
        """Round symmetrically around 0, each row by its largest value."""
        from torchao.quantization.granularity import PerRow  # late: an optional package
        from torchao.quantization.quantize_.workflows.int8.int8_tensor import Int8Tensor

        rounded = Int8Tensor.from_hp(weight_NK.float(), PerRow())
        return cls(qdata=rounded.qdata, scale=rounded.scale)

    @classmethod
    def _int4(cls, weight_NK: Tensor, group_size: int) -> Self:
        """Round to 16 levels between the smallest and the largest value of each group."""
        from torchao.quantization.quant_primitives import (
            MappingType,
            _choose_qparams_affine_tinygemm,
            _quantize_affine_tinygemm,
        )

        weight, block = weight_NK.float(), (1, group_size)
        scale_NG, zero_NG = _choose_qparams_affine_tinygemm(
            weight, MappingType.ASYMMETRIC, block, torch.int32, 0, _LEVELS, 1e-6, torch.float32, torch.float32
        )
        # The kernels read bfloat16, so values are rounded with the scales that will be there.
        scale_NG, zero_NG = scale_NG.bfloat16(), zero_NG.bfloat16()
        values_NK = _quantize_affine_tinygemm(weight, block, scale_NG.float(), zero_NG.float(), torch.int32, 0, _LEVELS)
        return cls(
            qdata=_two_in_a_byte(values_NK),
            scale=scale_NG.reshape(len(weight), -1),
            zero_point=zero_NG.reshape(len(weight), -1),
        )

    @property
    def parts(self) -> dict[str, Tensor]:
        """What a file holds, by the name that it adds to the weight's."""
        found = {"qdata": self.qdata, "scale": self.scale}
        return found if self.zero_point is None else {**found, "zero_point": self.zero_point}

    def to_torchao(self, device: torch.device) -> Tensor:
        """Return a bfloat16 tensor that computes with these integers on `device`."""
        if self.zero_point is None:
            from torchao.quantization.quantize_.workflows.int8.int8_tensor import Int8Tensor

            scale = self.scale.to(device)
            zeros = torch.zeros_like(scale, dtype=torch.int8)
            packed: Tensor = Int8Tensor(
                self.qdata.to(device), scale, [1, self.qdata.shape[1]], torch.bfloat16, zero_point=zeros
            )
            return packed
        return self._int4_on_gpu(device) if device.type == "cuda" else self._int4_on_cpu()

    def _int4_on_cpu(self) -> Tensor:
        from torchao.prototype.quantization.int4 import Int4OpaqueTensor

        values_NK = _apart(self.qdata).int()
        qdata = torch.ops.aten._convert_weight_to_int4pack_for_cpu(values_NK, 1)
        packed: Tensor = Int4OpaqueTensor(
            qdata, self._scale_and_zero(), [1, self.group_size], torch.Size(values_NK.shape)
        )
        return packed

    def _int4_on_gpu(self, device: torch.device) -> Tensor:
        from torchao.quantization import Int4TilePackedTo4dTensor

        values_NK = _apart(self.qdata)
        num_rows, num_columns = values_NK.shape
        more = (0, -num_columns % _CUDA_TILE_K, 0, -num_rows % _CUDA_TILE_N)
        padded_NK = functional.pad(values_NK, more, value=_MIDDLE)
        groups = padded_NK.shape[1] // self.group_size - self.scale.shape[1]
        assert self.zero_point is not None
        scale_NG, zero_NG = (functional.pad(part, (0, groups, 0, more[3])) for part in (self.scale, self.zero_point))
        qdata = torch.ops.aten._convert_weight_to_int4pack(_two_in_a_byte(padded_NK).to(device), _INNER_TILES)
        scale_and_zero = _interleaved(scale_NG, zero_NG).to(device)
        packed: Tensor = Int4TilePackedTo4dTensor(
            qdata, scale_and_zero, [1, self.group_size], torch.Size(values_NK.shape)
        )
        return packed

    def _scale_and_zero(self) -> Tensor:
        assert self.zero_point is not None
        return _interleaved(self.scale, self.zero_point)

    @property
    def group_size(self) -> int:
        """Input features that share a scale."""
        return 2 * self.qdata.shape[1] // self.scale.shape[1]

    @classmethod
    def from_torchao(cls, tensor: Any) -> Self:
        """Take apart what `to_torchao` made, on any device; exact."""
        if not hasattr(tensor, "scale_and_zero"):
            return cls(qdata=tensor.qdata, scale=tensor.scale)
        num_rows, num_columns = tensor.shape
        num_groups = num_columns // tensor.block_size[1]
        scale_NG, zero_NG = tensor.scale_and_zero[:num_groups, :num_rows].permute(2, 1, 0)
        return cls(qdata=_unpacked(tensor), scale=scale_NG.contiguous(), zero_point=zero_NG.contiguous())


def _two_in_a_byte(values_NK: Tensor) -> Tensor:
    return (values_NK[:, ::2] << 4 | values_NK[:, 1::2]).to(torch.uint8)


def _apart(qdata: Tensor) -> Tensor:
    """Return [N, K] uint8, values from 0 to 15."""
    return torch.stack([qdata >> 4, qdata & _LEVELS], dim=-1).flatten(1)


def _interleaved(scale_NG: Tensor, zero_NG: Tensor) -> Tensor:
    """Return [G, N, 2], as the kernels read it."""
    return torch.stack([scale_NG, zero_NG], dim=-1).transpose(0, 1).contiguous()


def _unpacked(tensor: Any) -> Tensor:
    """Read the values of a kernel's own order through its product with unit vectors and unit scales, in slices."""
    num_rows, num_columns = tensor.shape
    ones = torch.zeros_like(tensor.scale_and_zero)
    ones[..., 0] = 1
    cuda = tensor.qdata.device.type == "cuda"
    product = torch.ops.aten._weight_int4pack_mm if cuda else torch.ops.aten._weight_int4pack_mm_for_cpu
    width = num_columns + (-num_columns % _CUDA_TILE_K if cuda else 0)
    values_NK = torch.empty(num_rows, num_columns, dtype=torch.uint8)
    for start in range(0, num_columns, _UNPACKED_ROWS):
        stop = min(start + _UNPACKED_ROWS, num_columns)
        unit = torch.zeros(stop - start, width, dtype=torch.bfloat16, device=tensor.qdata.device)
        unit[torch.arange(stop - start), torch.arange(start, stop)] = 1
        columns = product(unit, tensor.qdata, tensor.block_size[1], ones)[:, :num_rows]
        values_NK[:, start:stop] = (columns.float().round() + _MIDDLE).t().to(torch.uint8).cpu()
    return _two_in_a_byte(values_NK)


def is_quantized(tensor: Tensor) -> bool:
    """Whether a parameter holds integers and scales."""
    return hasattr(tensor, "qdata")


def num_bytes(tensor: Tensor) -> int:
    """Return the memory of a parameter, with its scales if it is quantized."""
    parts = (getattr(tensor, name, None) for name in ("qdata", "scale", "zero_point", "scale_and_zero"))
    return sum(part.nbytes for part in parts if part is not None) if is_quantized(tensor) else tensor.nbytes


class QuantizedEmbedding(nn.Module):
    """An embedding of int8 rows."""

    def __init__(self, weight: Tensor, padding_idx: int | None) -> None:
        super().__init__()
        assert isinstance(weight, nn.Parameter)
        self.weight = weight
        self.padding_idx = padding_idx

    def forward(self, input: Tensor) -> Tensor:
        """Return the rows in the weight's dtype."""
        table: Any = self.weight
        rows: Tensor = functional.embedding(input, table.qdata).float() * functional.embedding(input, table.scale)
        return rows.to(table.dtype)


class QuantizedProjection(VocabularyProjection):
    """Logits over a vocabulary of int8 rows, a piece at a time: no piece's rows are ever whole in bfloat16."""

    def forward(self, input: Tensor, labels_M: Tensor | None = None) -> Tensor:
        """Return logits [M, V], or with labels each row's cross-entropy [M] in float32, without a derivative."""
        features_MD = input.to(self.weight.dtype)
        size = len(self.weight)
        width = max(1, min(size, _CHUNK_ELEMENTS // max(1, len(features_MD), features_MD.shape[-1])))
        pieces = ((start, min(start + width, size)) for start in range(0, size, width))

        def logits(start: int, stop: int) -> Tensor:
            return functional.linear(features_MD, self.weight[start:stop], self.bias[start:stop])

        if labels_M is None:
            return torch.cat([logits(*piece) for piece in pieces], dim=-1)
        return _cross_entropy(logits, list(pieces), labels_M)


@torch.no_grad()
def _cross_entropy(logits: Callable[[int, int], Tensor], pieces: list[tuple[int, int]], labels_M: Tensor) -> Tensor:
    normaliser_M = torch.full(labels_M.shape, -torch.inf, device=labels_M.device)
    target_M = torch.zeros(labels_M.shape, device=labels_M.device)
    for start, stop in pieces:
        piece_MC = logits(start, stop).float()
        normaliser_M = torch.logaddexp(normaliser_M, piece_MC.logsumexp(1))
        inside_M = (labels_M >= start) & (labels_M < stop)
        column_M1 = (labels_M - start).clamp(0, stop - start - 1)[:, None]
        target_M += piece_MC.gather(1, column_M1)[:, 0] * inside_M
    return normaliser_M - target_M
