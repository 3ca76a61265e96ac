"""Answers as spans of tokens: a long context cut into windows, and the best spans over all of them.

No model and no torch: logits come as arrays, so that training, evaluation and pipelines share these rules.

Source: google-research/xtreme at 1e21ba07, third_party/processors/squad.py (windows, the window in which a token has
most context) and third_party/run_squad.py (20 starts and ends per window, answers of at most 30 tokens), which reads
answers off by huggingface/transformers' data/metrics/squad_metrics.py at 0cbcecb6, compute_predictions_logits. Three
things differ. An answer is cut from the context by the characters of its tokens; there, tokens are turned back into
text, which is looked for in the context's words. Where no span is valid the answer is "", not the word "empty". The
question is never cut; there, it ends after 64 tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(kw_only=True, frozen=True, slots=True)
class Window:
    """A part of a context's tokens, as one sequence holds it."""

    first: int  # its first token, counted in the context
    length: int  # tokens of the context
    prefix: int  # tokens of its sequence before them: <s>, the question, </s></s>


@dataclass(kw_only=True, frozen=True, slots=True)
class Span:
    """Tokens of a context, the last one included, and what the model thinks of them."""

    first: int
    last: int
    score: float  # logit of the start plus logit of the end


@dataclass(kw_only=True, frozen=True, slots=True)
class Answer:
    """A piece of a context."""

    text: str
    begin: int  # its first character in the context
    probability: float  # among the answers it was read off with: softmax of their scores


def cut(num_tokens: int, room: int, stride: int) -> list[tuple[int, int]]:
    """Cut a context into windows that overlap.

    Args:
        num_tokens: Of the context.
        room: Tokens of it that a window holds.
        stride: Tokens from the start of a window to the start of the next one; at most `room`.

    Returns:
        First token and the one after the last of each window. The last window ends with the context.
    """
    assert 0 < stride <= room, (stride, room)
    starts = range(0, max(num_tokens - room, 0) + stride, stride)
    return [(start, min(start + room, num_tokens)) for start in starts]


class Alignment:
    """Which characters of a text belong to which of its tokens.

    Tokenizers let tokens overlap: a lone ▁ takes the first character of the piece after it, and the pieces of a
    character that was written out (… as three dots) all have that character. Some count the blank before a word as the
    word's. Here a token ends where the next one begins, has no blank at either end, and takes the characters after it
    that no token has (zero-width ones). A token may so be left with no character at all.

    Attributes:
        begins: First character of each token, ascending.
        ends: The one after its last character, ascending.
    """

    def __init__(self, text: str, offsets: Sequence[tuple[int, int]]) -> None:
        """Take begin and end of each token in the text's characters, as the tokenizer gives them."""
        self.begins: list[int] = []
        self.ends: list[int] = []
        for index, (begin, end) in enumerate(offsets):
            following = offsets[index + 1][0] if index + 1 < len(offsets) else len(text)
            end = min(end, following)
            while begin < end and text[begin].isspace():
                begin += 1
            while begin < end and text[end - 1].isspace():
                end -= 1
            while begin < end < following and not text[end].isspace():
                end += 1
            self.begins.append(begin)
            self.ends.append(end)

    def tokens_of(self, begin: int, end: int) -> tuple[int, int] | None:
        """Return first and last token of the tightest span that covers characters; None if no token has any of them.

        Args:
            begin: First character.
            end: The one after the last.
        """
        begins, ends = np.asarray(self.begins), np.asarray(self.ends)
        touched = np.flatnonzero((begins < end) & (ends > begin) & (ends > begins))
        return (int(touched[0]), int(touched[-1])) if len(touched) else None


def best_spans(
    windows: Sequence[Window],
    starts: Sequence[NDArray[np.floating[Any]]],
    ends: Sequence[NDArray[np.floating[Any]]],
    *,
    n_best: int,
    max_answer_length: int,
) -> Iterator[Span]:
    """Yield the valid spans of a context, best first; equal ones in the order of windows, starts and ends.

    A span pairs one of the `n_best` starts of a window with one of its `n_best` ends, both in the context, and is
    valid if its start has more context in this window than in any other. The best starts and ends are sought among
    all tokens of the sequence, so that a window which points at <s> or the question offers fewer spans.

    Args:
        windows: All windows of the context, in order.
        starts: Logits of each window's sequence, [L] each.
        ends: The same.
        n_best: Starts, and ends, that are looked at in a window.
        max_answer_length: Tokens.
    """
    firsts, lasts, scores = [], [], []
    owner = _window_with_most_context(windows)
    for index, (window, start_L, end_L) in enumerate(zip(windows, starts, ends, strict=True)):
        start_S, end_E = _best(start_L, n_best), _best(end_L, n_best)
        start_S, end_E = start_S[_in_context(start_S, window)], end_E[_in_context(end_E, window)]
        start_S = start_S[owner[start_S - window.prefix + window.first] == index]
        length_SE = end_E[None, :] - start_S[:, None] + 1
        row, column = np.nonzero((length_SE > 0) & (length_SE <= max_answer_length))
        start_N, end_N = start_S[row], end_E[column]
        firsts.append(start_N - window.prefix + window.first)
        lasts.append(end_N - window.prefix + window.first)
        scores.append(start_L[start_N].astype(np.float64) + end_L[end_N])
    first_N, last_N, score_N = map(np.concatenate, (firsts, lasts, scores))
    for index in np.argsort(-score_N, kind="stable"):
        yield Span(first=int(first_N[index]), last=int(last_N[index]), score=float(score_N[index]))


def read_answers(
    context: str, begins: Sequence[int], ends: Sequence[int], spans: Iterator[Span], *, n_best: int
) -> list[Answer]:
    """Return the texts of the best spans, each text once, at most `n_best`; empty if no span has characters.

    Args:
        context: The text.
        begins: First character of each token, from `Alignment`.
        ends: The one after its last character.
        spans: Best first.
        n_best: Answers.
    """
    found: dict[str, tuple[int, float]] = {}
    for span in spans:
        begin, end = begins[span.first], ends[span.last]
        text = context[begin:end].strip()  # a last token without characters stands behind a blank
        if text and text not in found:
            found[text] = begin, span.score
        if len(found) == n_best:
            break
    if not found:
        return []
    scores = np.array([score for _, score in found.values()])
    shares = np.exp(scores - scores.max())
    return [
        Answer(text=text, begin=begin, probability=probability)
        for (text, (begin, _)), probability in zip(found.items(), (shares / shares.sum()).tolist(), strict=True)
    ]


def _best(logits_L: NDArray[np.floating[Any]], count: int) -> NDArray[np.int64]:
    """Return the places of the highest logits, highest first; the first of equal ones first."""
    return np.argsort(-logits_L, kind="stable")[:count]


def _in_context(place: NDArray[np.int64], window: Window) -> NDArray[np.bool_]:
    return (place >= window.prefix) & (place < window.prefix + window.length)


def _window_with_most_context(windows: Sequence[Window]) -> NDArray[np.int64]:
    """Return for each token of the context the window in which it has most context: the first of equal ones.

    The context of a token is the smaller number of tokens on either side; a longer window counts a little more.
    """
    num_tokens = max(window.first + window.length for window in windows)
    owner, most = np.full(num_tokens, -1, dtype=np.int64), np.full(num_tokens, -np.inf)
    for index, window in enumerate(windows):
        left = np.arange(window.length)
        context = np.minimum(left, left[::-1]) + 0.01 * window.length
        part = slice(window.first, window.first + window.length)
        more = context > most[part]
        most[part][more] = context[more]
        owner[part][more] = index
    return owner
