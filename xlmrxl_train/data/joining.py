"""Lines become sequences of a fixed room: consecutive ones are joined, and nothing is cut off.

Source: FULL-SENTENCES, arXiv 1907.11692, section 4.2: sentences follow each other, also from one document to the next,
with an extra separator between documents, up to the longest sequence.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(kw_only=True, slots=True)
class Line:
    """The token ids of a line, without special tokens, and where it comes from."""

    id: str
    where: str
    language: str
    input_ids: list[int]
    new_document: bool  # whether a document begins with it


@dataclass(kw_only=True, slots=True)
class Block:
    """Consecutive lines as one sequence of token ids, named after the first of them."""

    id: str
    where: str
    language: str
    input_ids: list[int]


def join_lines(lines: Iterable[Line], room: int, separator: int) -> Iterator[Block]:
    """Yield sequences of at most `room` tokens.

    A line stands in one sequence. Only one that is longer than a sequence is cut, into sequences of its own: of line
    "7" these are "7", "7.1", "7.2", and the next line goes on after the last of them.

    Args:
        lines: In the order of the data set; those without a token are left out.
        room: Tokens of a sequence, without the special ones around it.
        separator: The token between the last line of a document and the first of the next; at the begin of a sequence
            there is none.
    """
    block: Block | None = None
    between: list[int] = []
    for line in lines:
        between = [separator] if line.new_document else between
        if not line.input_ids:
            continue
        if block and len(block.input_ids) + len(between) + len(line.input_ids) <= room:
            block.input_ids += between + line.input_ids
        else:
            if block:
                yield block
            *full, block = _cut(line, room)
            yield from full
        between = []
    if block:
        yield block


def _cut(line: Line, room: int) -> list[Block]:
    return [
        Block(
            id=f"{line.id}.{number}" if number else line.id,
            where=line.where,
            language=line.language,
            input_ids=line.input_ids[first : first + room],
        )
        for number, first in enumerate(range(0, len(line.input_ids), room))
    ]
