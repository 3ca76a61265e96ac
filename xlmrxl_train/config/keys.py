"""How a key is declared."""

from dataclasses import field
from typing import TypeVar

T = TypeVar("T")


def key(default: T, text: str) -> T:
    """Declare a key with its default and its help text."""
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata={"help": text})
    return field(default=default, metadata={"help": text})
