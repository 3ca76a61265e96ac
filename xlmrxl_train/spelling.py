"""Words for people: the one that was probably meant, and sizes."""

import difflib
from collections.abc import Iterable


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """Return the choice that `word` was probably meant to be: the same last part first, else similar spelling."""
    known = list(choices)
    last = word.rpartition(".")[2]
    same_last = [choice for choice in known if choice.rpartition(".")[2] == last]
    if same_last:
        return max(same_last, key=lambda choice: difflib.SequenceMatcher(None, word, choice).ratio())
    if close := difflib.get_close_matches(word, known, n=1):
        return close[0]
    by_last = {choice.rpartition(".")[2]: choice for choice in known}
    close = difflib.get_close_matches(last, by_last, n=1)
    return by_last[close[0]] if close else None


def did_you_mean(word: str, choices: Iterable[str], otherwise: str) -> str:
    """Return the sentence that ends a message about an unknown word."""
    match = nearest(word, choices)
    return f"Did you mean {match}?" if match else otherwise


def gigabytes(count: float) -> str:
    """Return a number of bytes for people."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"
