"""Where the values of a model's parameters come from, piece by piece: a checkpoint's files, or random numbers.

A process that holds a part of the model asks for that part alone. Every parameter that is drawn has random numbers of
its own, so any process can draw any of them, in any order, and all draw the same.
"""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from xlmrxl_train.model.layers import Embedding, LayerNorm
from xlmrxl_train.model.weights import CheckpointReader, LoadReport

BLOCK = 1 << 24  # elements read or drawn at a time: a larger buffer is no faster, and a tensor may be gigabytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NewParameter:
    """How a parameter is drawn that no file holds."""

    shape: tuple[int, ...]
    mean: float
    std: float
    uniform: bool = False
    """Between mean - std and mean + std, evenly."""
    zero_row: int | None = None
    """A row of zeros: the padding token's."""

    def values(self, start: int, count: int, seed: int) -> Tensor:
        """Return elements [start, start + count) of the flattened tensor, float32.

        Each block of it has a seed of its own, so no other block is drawn.
        """
        if self.std == 0.0 or not count:
            return torch.full((count,), self.mean)
        values = torch.empty(count)
        for piece_start, piece in _pieces(values, start):
            number, begin = divmod(piece_start, BLOCK)
            piece.copy_(self._block(number, seed)[begin : begin + piece.numel()])
        if self.zero_row is not None:
            row = self.shape[-1]
            first = self.zero_row * row - start
            values[max(0, first) : max(0, first + row)] = 0.0
        return values

    def _block(self, number: int, seed: int) -> Tensor:
        size = min(BLOCK, prod(self.shape) - number * BLOCK)
        block_seed = zlib.crc32(number.to_bytes(8, "little"), seed) if number else seed
        values, generator = torch.empty(size), torch.Generator().manual_seed(block_seed)
        if self.uniform:
            return values.uniform_(self.mean - self.std, self.mean + self.std, generator=generator)
        return values.normal_(self.mean, self.std, generator=generator)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """Some rows of a parameter that was described whole."""

    name: str
    numbers: Tensor  # ascending
    width: int


class ParameterSource:
    """The values that a model on the meta device is to be filled with."""

    def __init__(
        self, model: nn.Module, std: float, seed: int, reader: CheckpointReader | None, stored: Mapping[str, str],
        report: LoadReport | None = None,
    ) -> None:  # fmt: skip
        """Describe every parameter of `model`.

        Args:
            model: Its shapes count, not its memory.
            std: Deviation of new matrices (`initializer_range`).
            seed: Of all random numbers.
            reader: The checkpoint; None: everything is new.
            stored: Parameter -> its name in the checkpoint; the others are new.
            report: What the checkpoint lacks, for people.
        """
        self.seed = seed
        self.reader = reader
        self.stored = stored
        self.std = std
        self.report = report
        self.new = {
            name: _new_parameter(model, name, std) for name, _ in model.named_parameters() if name not in stored
        }
        self._parts: dict[str, _Rows] = {}

    def divide(self, name: str, parts: Mapping[str, Tensor]) -> None:
        """Let parameters be some rows of `name` each, a matrix, with the values that they have there.

        Args:
            name: The parameter that the model no longer has.
            parts: Parameter -> numbers of its rows, ascending.
        """
        width = (self.new[name].shape if name in self.new else self._reader.shapes[self.stored[name]])[-1]
        self._parts |= {part: _Rows(name=name, numbers=numbers, width=width) for part, numbers in parts.items()}

    def dtype_of(self, name: str) -> torch.dtype:
        """Return the dtype in which `values` returns a parameter."""
        return self.values(name, 0, 0).dtype

    @property
    def _reader(self) -> CheckpointReader:
        assert self.reader is not None
        return self.reader

    def values(self, name: str, start: int, count: int) -> Tensor:
        """Return elements [start, start + count) of a flattened parameter, on the CPU, in the file's dtype or float32.

        Raises:
            CheckpointError: The file cannot be read.
        """
        if name in self._parts:
            return self._of_rows(self._parts[name], start, count)
        if name in self.new:
            return self.new[name].values(start, count, zlib.crc32(name.encode(), self.seed % 2**32))
        return self._reader.read_part(self.stored[name], start, count)

    def _of_rows(self, part: _Rows, start: int, count: int) -> Tensor:
        """Read the span of the whole that holds the rows of an interval, in pieces, and choose from each."""
        width, height = part.width, max(1, BLOCK // part.width)  # rows read at a time
        numbers = part.numbers[start // width : -(-(start + count) // width)]
        chosen = [self.values(part.name, 0, 0)]
        for piece in numbers.tensor_split((numbers // height).diff().nonzero().squeeze(1) + 1) if count else ():
            first, last = int(piece[0]), int(piece[-1])
            rows = self.values(part.name, first * width, (last + 1 - first) * width)
            chosen.append(rows.view(-1, width)[piece - first].view(-1))
        return torch.cat(chosen)[start % width :][:count]

    @torch.no_grad()
    def fill(self, target: Tensor, name: str, start: int = 0) -> None:
        """Fill `target`, one-dimensional and contiguous, with the elements from `start` on."""
        for piece_start, piece in _pieces(target, start):
            values = self.values(name, piece_start, piece.numel())
            piece.copy_(values.to(piece.device))  # before it is cast: half the bytes to a device


def _pieces(values: Tensor, start: int) -> Iterator[tuple[int, Tensor]]:
    """Cut `values`, the elements from `start` on, where the blocks of the whole tensor end."""
    end = start + values.numel()
    cuts = [start, *range((start // BLOCK + 1) * BLOCK, end, BLOCK), end]
    for piece_start, piece_end in pairwise(cuts):
        yield piece_start, values[piece_start - start : piece_end - start]


def _new_parameter(model: nn.Module, name: str, std: float) -> NewParameter:
    """Return how the Hub draws a parameter: N(0, std), zero biases and padding rows, layer norms 1 and 0.

    Source: transformers 5.23, PreTrainedModel._init_weights.
    """
    owner_name, _, attribute = name.rpartition(".")
    owner, shape = model.get_submodule(owner_name), tuple(model.get_parameter(name).shape)
    if isinstance(owner, LayerNorm):
        return NewParameter(shape=shape, mean=1.0 if attribute == "weight" else 0.0, std=0.0)
    if attribute != "weight":
        return NewParameter(shape=shape, mean=0.0, std=0.0)
    return NewParameter(
        shape=shape, mean=0.0, std=std, zero_row=owner.padding_idx if isinstance(owner, Embedding) else None
    )
