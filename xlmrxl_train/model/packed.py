"""Where each sequence of a packed batch lies, and how attention cuts the batch into padded blocks.

Suffixes: T tokens of the packed batch, B sequences, N sequences of one group, L longest of a group,
P rows of all groups with their padding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from xlmrxl_train.errors import DataError

DEFAULT_MAX_GROUPS = 8
# Costs in units of one attention score of one head. XNLI batches get 4 to 5 groups, the flat bottom of what was
# measured on a CPU for widths 512 and 2560 (benchmarks/PROFILE.md has the table).
_GROUP_OVERHEAD = 4096.0
_COST_PER_PADDED_TOKEN = 32.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LengthGroup:
    """Sequences of similar length, as one block of N x L rows that begins at row `start` of P."""

    num_sequences: int
    max_length: int
    start: int
    key_bias: Tensor | None
    """[N, 1, 1, L] float32, 0 for tokens and -inf for padding; None if all lengths are equal."""

    @property
    def stop(self) -> int:
        """Row of P after the block's last."""
        return self.start + self.num_sequences * self.max_length


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedSequences:
    """Describe a packed batch. Build it once per batch with `from_lengths`, on the CPU, then move it.

    It is no pytree: data-parallel wrappers pass it through a forward call as it is.
    """

    lengths: tuple[int, ...]
    """Tokens of each sequence, in the caller's order, B numbers."""
    offsets: Tensor
    """[B + 1] int32: sequence b is rows offsets[b] to offsets[b + 1]."""
    order: tuple[int, ...]
    """The sequences as they follow each other in the groups."""
    groups: tuple[LengthGroup, ...]
    rows: Tensor | None
    """[P] int64: the token that fills each row of the blocks (padding repeats a token); None if P is T in order."""
    places: Tensor | None
    """[T] int64: the row of P that holds each token; None as `rows`."""
    padding_rows: Tensor | None
    """int64: rows of P that are padding; None if there are none."""

    @property
    def num_sequences(self) -> int:
        """B."""
        return len(self.lengths)

    @property
    def num_tokens(self) -> int:
        """T."""
        return sum(self.lengths)

    @property
    def max_length(self) -> int:
        """Tokens of the longest sequence."""
        return max(self.lengths)

    @property
    def first_tokens(self) -> Tensor:
        """[B] int32: the row of T with each sequence's first token."""
        return self.offsets[:-1]

    @classmethod
    def from_lengths(
        cls,
        lengths: Sequence[int],
        *,
        max_groups: int = DEFAULT_MAX_GROUPS,
        like: "PackedSequences | None" = None,
    ) -> "PackedSequences":
        """Choose the groups that make padded area plus overhead smallest.

        Sequences sorted by length need no reordering and are fastest; any order is correct.

        Args:
            lengths: Tokens per sequence, each at least 1.
            max_groups: Upper bound; 1 keeps the caller's order.
            like: Take this one's order and cuts (the keys that go with its queries).

        Raises:
            DataError: There is no sequence, or one without tokens.
        """
        lengths = tuple(lengths)
        _check_lengths(lengths)
        if like is not None:
            order, sizes = like.order, [group.num_sequences for group in like.groups]
        else:
            order, sizes = _plan(lengths, max_groups)
        return _build(lengths, order, sizes)

    def cut_as(self, other: "PackedSequences") -> bool:
        """Whether the groups of both hold the same sequences in the same order."""
        sizes, others = ([group.num_sequences for group in one.groups] for one in (self, other))
        return self.order == other.order and sizes == others

    def first_only(self) -> "PackedSequences":
        """Return each sequence's first token as a sequence of its own, in this one's order and groups."""
        first = PackedSequences.from_lengths((1,) * self.num_sequences, like=self)
        return first.to(self.offsets.device, non_blocking=True)

    def one_group(self) -> "PackedSequences":
        """Return the same batch as a single block in the caller's order, on the same device."""
        if len(self.groups) == 1 and self.order == tuple(range(self.num_sequences)):
            return self
        single = PackedSequences.from_lengths(self.lengths, max_groups=1)
        return single.to(self.offsets.device, non_blocking=True)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "PackedSequences":
        """Return a copy whose tensors are on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "PackedSequences":
        """Return a copy in page-locked memory; torch's DataLoader calls this."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: Callable[[Tensor], Tensor]) -> "PackedSequences":
        groups = tuple(
            LengthGroup(
                num_sequences=group.num_sequences,
                max_length=group.max_length,
                start=group.start,
                key_bias=None if group.key_bias is None else change(group.key_bias),
            )
            for group in self.groups
        )
        return PackedSequences(
            lengths=self.lengths,
            offsets=change(self.offsets),
            order=self.order,
            groups=groups,
            rows=None if self.rows is None else change(self.rows),
            places=None if self.places is None else change(self.places),
            padding_rows=None if self.padding_rows is None else change(self.padding_rows),
        )

    def sequence_of_token(self) -> Tensor:
        """Return [T] int64: the sequence that each token belongs to."""
        lengths_B = self.offsets.diff()
        index_B = torch.arange(self.num_sequences, device=self.offsets.device)
        return index_B.repeat_interleave(lengths_B, output_size=self.num_tokens)

    def to_padded(self, values_T: Tensor, fill: float) -> Tensor:
        """Spread [T] to [B, longest], with `fill` behind each sequence's end."""
        position_L = torch.arange(self.max_length, device=values_T.device)
        index_BL = (self.offsets[:-1, None] + position_L).clamp(max=self.num_tokens - 1)
        inside_BL = position_L < self.offsets.diff()[:, None]
        return values_T[index_BL].masked_fill(~inside_BL, fill)


def _check_lengths(lengths: tuple[int, ...]) -> None:
    if not lengths:
        raise DataError("lengths must name at least one sequence, got none. Leave out empty batches.")
    for index, length in enumerate(lengths):
        if length < 1:
            raise DataError(
                f"every sequence must have at least 1 token, got {length} in sequence {index}. "
                "Leave out empty rows (an attention_mask row of zeros is one)."
            )


def _plan(lengths: tuple[int, ...], max_groups: int) -> tuple[tuple[int, ...], list[int]]:
    """Return the order of the sequences and the number of sequences of each group."""
    num_sequences = len(lengths)
    in_order = tuple(range(num_sequences))
    if max_groups <= 1 or num_sequences == 1:
        return in_order, [num_sequences]
    if all(left >= right for left, right in pairwise(lengths)):
        return in_order, _cut(lengths, max_groups)
    if all(left <= right for left, right in pairwise(lengths)):
        return in_order, _cut(lengths[::-1], max_groups)[::-1]
    order = tuple(sorted(in_order, key=lambda index: -lengths[index]))
    sizes = _cut(tuple(lengths[index] for index in order), max_groups)
    if len(sizes) == 1:
        return in_order, sizes
    return order, sizes


def _cut(descending: tuple[int, ...], max_groups: int) -> list[int]:
    """Cut lengths, longest first, at the least cost, by dynamic programming over distinct lengths.

    Returns:
        Sequences per group.
    """
    distinct_U, count_U = torch.tensor(descending).unique_consecutive(return_counts=True)
    num_distinct = distinct_U.numel()
    area_U = distinct_U.double() * (distinct_U.double() + _COST_PER_PADDED_TOKEN)
    before_U = torch.cat([count_U.new_zeros(1), count_U.cumsum(0)]).double()
    cost_UU = (before_U[None, 1:] - before_U[:-1, None]) * area_U[:, None] + _GROUP_OVERHEAD
    cost_UU = cost_UU.masked_fill(torch.ones_like(cost_UU).tril(-1).bool(), torch.inf)
    best_U = cost_UU[0]  # the cheapest way to cover the distinct lengths 0..j with the groups so far
    history: list[Tensor] = []
    finals = [best_U[-1].item()]
    for _ in range(min(max_groups, num_distinct) - 1):
        candidates_UU = best_U[:-1, None] + cost_UU[1:]
        best_rest_U, from_U = candidates_UU.min(0)
        best_U = best_rest_U
        history.append(from_U)
        finals.append(best_U[-1].item())
    num_groups = min(range(len(finals)), key=finals.__getitem__) + 1
    last, sizes = num_distinct, []
    for step in range(num_groups - 1, 0, -1):
        first = int(history[step - 1][last - 1]) + 1
        sizes.append(int(before_U[last] - before_U[first]))
        last = first
    sizes.append(int(before_U[last]))
    return sizes[::-1]


def _build(lengths: tuple[int, ...], order: tuple[int, ...], sizes: Sequence[int]) -> PackedSequences:
    num_sequences, num_tokens = len(lengths), sum(lengths)
    lengths_B = torch.tensor(lengths)
    offsets = torch.cat([lengths_B.new_zeros(1), lengths_B.cumsum(0)])
    groups: list[LengthGroup] = []
    block_lengths: list[int] = []
    first = start = 0
    for size in sizes:
        members = [lengths[index] for index in order[first : first + size]]
        longest = max(members)
        bias = None
        if min(members) < longest:
            padding_NL = torch.arange(longest) >= torch.tensor(members)[:, None]
            bias = torch.zeros(size, longest).masked_fill_(padding_NL, -torch.inf)[:, None, None]
        groups.append(LengthGroup(num_sequences=size, max_length=longest, start=start, key_bias=bias))
        block_lengths += [longest] * size
        first += size
        start = groups[-1].stop
    rows = places = padding_rows = None
    in_order = order == tuple(range(num_sequences))
    if not (in_order and start == num_tokens):
        order_B, block_B = torch.tensor(order), torch.tensor(block_lengths)
        slot_B = torch.empty_like(lengths_B)
        slot_B[order_B] = block_B.cumsum(0) - block_B
        places = torch.arange(num_tokens) + (slot_B - offsets[:-1]).repeat_interleave(lengths_B)
        rows = offsets[:-1][order_B].repeat_interleave(block_B)
        rows[places] = torch.arange(num_tokens)
        if start > num_tokens:
            padding = torch.ones(start, dtype=torch.bool)
            padding[places] = False
            padding_rows = padding.nonzero().squeeze(1)
    return PackedSequences(
        lengths=lengths, offsets=offsets.int(), order=order, groups=tuple(groups),
        rows=rows, places=places, padding_rows=padding_rows,
    )  # fmt: skip
