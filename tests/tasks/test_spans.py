"""Windows of a context, characters of tokens, and the best span over all windows, by hand-made logits."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.session import SAMPLE_TOKENIZER
from xlmrxl_train.tasks.spans import Alignment, Span, Window, best_spans, cut, read_answers

LOW = -9.0


@pytest.mark.parametrize(
    ("num_tokens", "room", "stride", "windows"),
    [
        (5, 10, 3, [(0, 5)]),
        (10, 10, 3, [(0, 10)]),
        (11, 10, 3, [(0, 10), (3, 11)]),
        (20, 10, 4, [(0, 10), (4, 14), (8, 18), (12, 20)]),
        (21, 10, 10, [(0, 10), (10, 20), (20, 21)]),
    ],
)
def test_windows_of_a_context(num_tokens: int, room: int, stride: int, windows: list[tuple[int, int]]) -> None:
    assert cut(num_tokens, room, stride) == windows


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.integers(1, 90), st.integers(1, 30), st.data())
def test_windows_cover_a_context_and_the_last_one_alone_is_short(
    num_tokens: int, room: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, room))
    windows = cut(num_tokens, room, stride)
    assert set(itertools.chain.from_iterable(range(first, end) for first, end in windows)) == set(range(num_tokens))
    assert [first for first, _ in windows] == [index * stride for index in range(len(windows))]
    assert all(end - first == room for first, end in windows[:-1]) and windows[-1][1] == num_tokens
    assert len(windows) == 1 or windows[-2][1] < num_tokens  # nothing is read that the one before has read whole


def logits(length: int, **high: float) -> np.ndarray:
    """Logits that are low but at the places named p3=1.5."""
    values = np.full(length, LOW)
    for place, value in high.items():
        values[int(place[1:])] = value
    return values


def best(windows: list[Window], starts: list[np.ndarray], ends: list[np.ndarray], **rules: int) -> list[Span]:
    return list(best_spans(windows, starts, ends, **({"n_best": 20, "max_answer_length": 30} | rules)))


ONE = Window(first=0, length=6, prefix=4)  # <s> q </s></s> c0 .. c5 </s>


def test_the_best_span_pairs_a_start_with_a_later_end() -> None:
    starts, ends = logits(11, p5=3.0, p8=5.0), logits(11, p6=4.0, p9=1.0)
    spans = best([ONE], [starts], [ends])
    # Start p8 (c4) with end p6 (c2) would score 9 and runs backwards; p5 with p6 scores 7, p8 with p9 scores 6.
    assert spans[:2] == [Span(first=1, last=2, score=7.0), Span(first=4, last=5, score=6.0)]
    assert all(span.first <= span.last for span in spans)


def test_question_and_special_tokens_are_no_answer() -> None:
    starts, ends = logits(11, p0=9.0, p1=8.0, p6=1.0), logits(11, p0=9.0, p10=8.0, p7=1.0)
    assert best([ONE], [starts], [ends])[0] == Span(first=2, last=3, score=2.0)


def test_places_outside_the_context_take_room_among_the_n_best() -> None:
    starts, ends = logits(11, p0=9.0, p1=8.0, p6=1.0), logits(11, p7=1.0)
    assert best([ONE], [starts], [ends], n_best=2) == []
    assert best([ONE], [starts], [ends], n_best=3)[0] == Span(first=2, last=3, score=2.0)


def test_an_answer_has_at_most_so_many_tokens() -> None:
    starts, ends = logits(11, p4=5.0), logits(11, p9=5.0, p6=1.0)
    assert best([ONE], [starts], [ends], max_answer_length=6)[0] == Span(first=0, last=5, score=10.0)
    assert best([ONE], [starts], [ends], max_answer_length=5)[0] == Span(first=0, last=2, score=6.0)


def test_equal_spans_keep_the_order_of_starts_and_ends() -> None:
    starts, ends = logits(11, p5=1.0, p6=1.0), logits(11, p8=1.0, p9=1.0)
    found = [(span.first, span.last) for span in best([ONE], [starts], [ends])[:4]]
    assert found == [(1, 4), (1, 5), (2, 4), (2, 5)]


def test_a_start_counts_in_the_window_where_it_has_most_context() -> None:
    # Room 6, stride 3, 10 tokens: c0-c5, c3-c8, c6-c9. Token 4 has min(4, 1) = 1 on a side in the first window and
    # min(1, 4) = 1 in the second: the first of equal ones is taken. Token 5 has 0 and 2, so the second has it.
    windows = [Window(first=first, length=end - first, prefix=4) for first, end in cut(10, 6, 3)]
    assert [(window.first, window.length) for window in windows] == [(0, 6), (3, 6), (6, 4)]
    starts = [logits(11, p8=1.0, p9=8.0), logits(11, p5=7.0, p6=2.0), logits(9)]
    ends = [logits(11, p9=1.0), logits(11, p6=1.0), logits(9)]
    spans = best(windows, starts, ends)
    # c5 starts in the first window with 8, and c4 in the second with 7: both count in the other window only.
    assert [span for span in spans if span.score > LOW + 8] == [
        Span(first=5, last=5, score=3.0),
        Span(first=4, last=5, score=2.0),
    ]


def test_an_end_may_lie_where_another_window_has_more_context() -> None:
    windows = [Window(first=first, length=end - first, prefix=4) for first, end in cut(10, 6, 3)]
    starts, ends = [logits(11, p7=5.0), logits(11), logits(9)], [logits(11, p9=5.0), logits(11), logits(9)]
    assert best(windows, starts, ends)[0] == Span(first=3, last=5, score=10.0)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.integers(1, 40), st.integers(2, 12), st.integers(0, 2**32 - 1), st.data())
def test_spans_are_those_of_plain_loops(num_tokens: int, room: int, seed: int, data: st.DataObject) -> None:
    stride, n_best = data.draw(st.integers(1, room)), data.draw(st.integers(1, 12))
    windows = [Window(first=first, length=end - first, prefix=3) for first, end in cut(num_tokens, room, stride)]
    random = np.random.default_rng(seed)
    starts = [random.integers(-4, 5, window.length + 4).astype(np.float32) for window in windows]
    ends = [random.integers(-4, 5, window.length + 4).astype(np.float32) for window in windows]
    found = [
        (span.first, span.last, span.score) for span in best(windows, starts, ends, n_best=n_best, max_answer_length=4)
    ]
    assert found == plainly(windows, starts, ends, n_best, 4)


def plainly(windows, starts, ends, n_best: int, longest: int) -> list[tuple[int, int, float]]:
    """The rules written down as one reads them, without arrays."""

    def ranked(values) -> list[int]:
        return sorted(range(len(values)), key=lambda place: values[place], reverse=True)[:n_best]

    def owner(token: int) -> int:
        scores = []
        for index, window in enumerate(windows):
            last = window.first + window.length - 1
            if window.first <= token <= last:
                scores.append((min(token - window.first, last - token) + 0.01 * window.length, -index))
        return -max(scores)[1]

    spans = []
    for index, window in enumerate(windows):
        shift = window.first - window.prefix
        for start in ranked(starts[index]):
            for end in ranked(ends[index]):
                inside = all(0 <= place - window.prefix < window.length for place in (start, end))
                if inside and 0 <= end - start < longest and owner(start + shift) == index:
                    spans.append((start + shift, end + shift, float(starts[index][start]) + float(ends[index][end])))
    return sorted(spans, key=lambda span: span[2], reverse=True)


CONTEXT = "Ada met Bo, and Bo left"
BEGINS, ENDS = [0, 4, 8, 10, 12, 16, 19], [3, 7, 10, 11, 15, 18, 23]


def read(*spans: tuple[int, int, float], n_best: int = 20) -> list[tuple[str, int, float]]:
    given = (Span(first=first, last=last, score=score) for first, last, score in spans)
    answers = read_answers(CONTEXT, BEGINS, ENDS, given, n_best=n_best)
    return [(answer.text, answer.begin, answer.probability) for answer in answers]


def test_answers_are_cut_from_the_context_each_text_once() -> None:
    answers = read((2, 2, 1.0), (5, 5, 0.9), (0, 1, 0.0), (4, 6, 0.0))
    assert [(text, begin) for text, begin, _ in answers] == [("Bo", 8), ("Ada met", 0), ("and Bo left", 12)]
    # By hand: e / (e + 1 + 1), 1 / (e + 1 + 1).
    assert [probability for *_, probability in answers] == pytest.approx([0.576117, 0.211942, 0.211942], abs=1e-6)
    assert [text for text, *_ in read((2, 2, 1.0), (5, 5, 0.9), (0, 1, 0.0), n_best=1)] == ["Bo"]
    assert read() == []


def test_a_span_without_characters_is_no_answer() -> None:
    spans = [Span(first=0, last=0, score=2.0), Span(first=0, last=1, score=1.0)]
    answers = read_answers("ab", [0, 0], [0, 2], iter(spans), n_best=20)
    assert [answer.text for answer in answers] == ["ab"]
    # "The" and the lone word start of "old", which stands behind the blank.
    spans = [Span(first=0, last=1, score=2.0), Span(first=0, last=0, score=1.0)]
    assert [answer.text for answer in read_answers("The old", [0, 4, 4], [3, 4, 7], iter(spans), n_best=9)] == ["The"]


def test_a_lone_word_start_has_no_character() -> None:
    # "▁" (4, 5) and "left" (4, 8) overlap by one character; the span of "left" begins with its own piece.
    alignment = Alignment("Bo, left", [(0, 2), (2, 3), (4, 5), (4, 8)])
    assert (alignment.begins, alignment.ends) == ([0, 2, 4, 4], [2, 3, 4, 8])
    assert alignment.tokens_of(4, 8) == (3, 3)
    assert alignment.tokens_of(0, 8) == (0, 3)
    assert alignment.tokens_of(3, 4) is None  # the blank between words


def test_blanks_belong_to_no_token() -> None:
    # As some tokenizers count: "▁man" with the blank before it, "▁" alone as the blank itself.
    alignment = Alignment("old man go ", [(0, 3), (3, 7), (7, 8), (8, 11)])
    assert (alignment.begins, alignment.ends) == ([0, 4, 8, 8], [3, 7, 8, 10])
    assert alignment.tokens_of(4, 7) == (1, 1) and alignment.tokens_of(8, 10) == (3, 3)


def test_pieces_of_one_character_share_it() -> None:
    # "…" is written out as three dots, here in two pieces of the one character.
    alignment = Alignment("so…x", [(0, 2), (2, 3), (2, 3), (3, 4)])
    assert alignment.tokens_of(2, 3) == (2, 2) and alignment.tokens_of(0, 3) == (0, 2)


def test_a_character_without_a_token_belongs_to_the_token_before() -> None:
    text = "ab\u200b cd\u200c"
    alignment = Alignment(text, [(0, 2), (4, 6)])
    assert (alignment.begins, alignment.ends) == ([0, 4], [3, 7])
    assert alignment.tokens_of(0, 3) == (0, 0) and alignment.tokens_of(4, 7) == (1, 1)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.text(st.sampled_from("ab cé…½ﬁ㎞한e\u0301\u200b\u3000. (1ا中ไ"), min_size=1, max_size=25), st.data())
def test_the_text_of_a_tightest_span_holds_what_it_was_made_from(text: str, data: st.DataObject) -> None:
    tokenizer = Tokenizer.from_path(SAMPLE_TOKENIZER)
    alignment = Alignment(text, tokenizer(text, return_offsets_mapping=True)["offset_mapping"][1:-1])
    assert alignment.begins == sorted(alignment.begins) and alignment.ends == sorted(alignment.ends)
    begin = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(begin + 1, len(text)))
    if span := alignment.tokens_of(begin, end):
        first, last = span
        cover = range(alignment.begins[first], alignment.ends[last])
        owned = {place for b, e in zip(alignment.begins, alignment.ends, strict=True) for place in range(b, e)}
        assert set(range(begin, end)) & owned <= set(cover)
        for token in (first, last):  # tight: either end has a character that was asked for
            assert set(range(alignment.begins[token], alignment.ends[token])) & set(range(begin, end))
