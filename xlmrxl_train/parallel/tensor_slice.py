"""A contiguous part of a tensor, in row-major order, as torch.distributed.checkpoint saves and loads it.

A ZeRO partition is an interval of the flattened tensor. Cut into axis-aligned boxes it is written with the tensor's own
shape, so that row shards and whole tensors of other strategies read it without knowing. The three dunder methods are
DCP's _Checkpointable protocol, which is private in name: tests hold it on every version of torch that is supported.
"""

from collections.abc import Iterator
from math import prod
from typing import Any, Self

import torch
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType

Box = tuple[tuple[int, ...], tuple[int, ...], int]


def boxes(shape: tuple[int, ...], begin: int, end: int) -> Iterator[Box]:
    """Cut elements [begin, end) of a row-major tensor into axis-aligned boxes, 3 for a matrix at most.

    Yields:
        Offsets, sizes, and the number of the box's first element.
    """
    if begin >= end:
        return
    if len(shape) <= 1:
        yield (begin,)[: len(shape)], (end - begin,)[: len(shape)], begin
        return
    row = prod(shape[1:])
    first, last = -(-begin // row), end // row  # whole rows [first, last)
    if first > last:  # within one row
        yield from _inside(shape, last, begin - last * row, end - last * row)
        return
    if begin < first * row:
        yield from _inside(shape, first - 1, begin - (first - 1) * row, row)
    if last > first:
        yield (first, *[0] * len(shape[1:])), (last - first, *shape[1:]), first * row
    yield from _inside(shape, last, 0, end - last * row)


def _inside(shape: tuple[int, ...], index: int, begin: int, end: int) -> Iterator[Box]:
    """Cut elements [begin, end) of row `index`."""
    for offsets, sizes, element in boxes(shape[1:], begin, end):
        yield (index, *offsets), (1, *sizes), element + index * prod(shape[1:])


class TensorSlice(torch.Tensor):
    """Elements [start, start + flat.numel()) of a tensor of `shape`; `flat` is written and read in place."""

    flat: torch.Tensor
    start: int

    @staticmethod
    def __new__(cls, flat: torch.Tensor, shape: tuple[int, ...], start: int) -> Self:
        """Describe `flat`, one-dimensional, as a part of a tensor of `shape`."""
        self = torch.Tensor._make_wrapper_subclass(cls, torch.Size(shape), dtype=flat.dtype, device=flat.device)
        self.flat, self.start = flat, start
        return self

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Allow what DCP does to a tensor before it asks for parts."""
        if func is torch.ops.aten.detach.default:
            return cls(args[0].flat.detach(), args[0].shape, args[0].start)
        raise NotImplementedError(f"a TensorSlice is only for checkpoints, not for {func}")

    def __repr__(self, *, tensor_contents: object = None) -> str:  # type: ignore[override]
        return f"TensorSlice({tuple(self.shape)}, {self.start}:{self.start + self.flat.numel()}, {self.dtype})"

    def staged(self) -> "TensorSlice":
        """Return a copy in host memory."""
        return TensorSlice(self.flat.detach().to("cpu", copy=True), tuple(self.shape), self.start)

    def _boxes(self) -> list[tuple[torch.Size, torch.Size, int]]:
        interval = boxes(tuple(self.shape), self.start, self.start + self.flat.numel())
        return [(torch.Size(offsets), torch.Size(sizes), first) for offsets, sizes, first in interval]

    def __create_write_items__(self, fqn: str, _: object) -> list[WriteItem]:
        properties = TensorProperties.create_from_tensor(self.flat)
        return [
            WriteItem(
                MetadataIndex(fqn, offsets),
                WriteItemType.SHARD,
                tensor_data=TensorWriteData(ChunkStorageMetadata(offsets, sizes), properties, self.shape),
            )
            for offsets, sizes, _ in self._boxes()
        ]

    def __create_chunk_list__(self) -> list[ChunkStorageMetadata]:
        return [ChunkStorageMetadata(offsets, sizes) for offsets, sizes, _ in self._boxes()]

    def __get_tensor_shard__(self, index: MetadataIndex) -> torch.Tensor:
        for offsets, sizes, first in self._boxes():
            if offsets == index.offset:
                return self.flat[first - self.start :][: sizes.numel()].view(sizes)
        raise KeyError(index)
