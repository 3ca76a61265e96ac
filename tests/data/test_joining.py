"""Lines joined into sequences: nothing is lost, nothing is longer than its room, documents are kept apart."""

from hypothesis import given, settings
from hypothesis import strategies as st

from xlmrxl_train.data.joining import Block, Line, join_lines

SEPARATOR = 2


def lines(*parts: tuple[list[int], bool]) -> list[Line]:
    return [
        Line(id=str(number), where=f"t.txt:{number + 1}", language="sw", input_ids=tokens, new_document=first)
        for number, (tokens, first) in enumerate(parts)
    ]


def joined(room: int, *parts: tuple[list[int], bool]) -> list[tuple[str, list[int]]]:
    return [(block.id, block.input_ids) for block in join_lines(lines(*parts), room, SEPARATOR)]


def test_lines_stay_whole() -> None:
    assert joined(5, ([7, 8], False), ([9, 10, 11], False), ([12], False), ([13, 14, 15, 16, 17], False)) == [
        ("0", [7, 8, 9, 10, 11]),
        ("2", [12]),
        ("3", [13, 14, 15, 16, 17]),
    ]


def test_a_line_longer_than_a_sequence_is_cut_and_its_rest_goes_on() -> None:
    assert joined(3, ([7], False), (list(range(10, 17)), False), ([8, 9], False)) == [
        ("0", [7]),
        ("1", [10, 11, 12]),
        ("1.1", [13, 14, 15]),
        ("1.2", [16, 8, 9]),
    ]


def test_a_separator_stands_between_documents_and_not_at_the_begin_of_a_sequence() -> None:
    assert joined(6, ([7], True), ([8], True), ([], False), ([9], False), ([10, 11], True)) == [
        ("0", [7, SEPARATOR, 8, 9]),
        ("4", [10, 11]),
    ]
    assert joined(9, ([7], True), ([], True), ([8], False)) == [("0", [7, SEPARATOR, 8])]  # of an empty line too


def test_a_sequence_is_named_after_its_first_line() -> None:
    first, second = join_lines(lines(([7, 7], False), ([8], False), ([9, 9], False)), 3, SEPARATOR)
    assert first == Block(id="0", where="t.txt:1", language="sw", input_ids=[7, 7, 8])
    assert (second.id, second.where) == ("2", "t.txt:3")


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 9),
    st.lists(st.tuples(st.lists(st.integers(10, 99), max_size=20), st.booleans()), max_size=30),
)
def test_every_token_comes_back_in_order(room: int, parts: list[tuple[list[int], bool]]) -> None:
    given_lines = [(list(tokens), first) for tokens, first in parts]
    blocks = joined(room, *given_lines)
    tokens = [token for _, block in blocks for token in block if token != SEPARATOR]
    assert tokens == [token for line, _ in parts for token in line]
    assert all(0 < len(block) <= room and block[0] != SEPARATOR != block[-1] for _, block in blocks)
    assert len({id_ for id_, _ in blocks}) == len(blocks)
