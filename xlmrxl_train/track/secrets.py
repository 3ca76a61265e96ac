"""Keeps secrets out of everything that a run writes, prints or sends: `redact` puts *** in their place."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

HIDDEN = "***"
SHORTEST = 8  # characters; a shorter value of a variable is a word that may stand in any text

_NAME_OF_SECRET = re.compile(r"(^|_)(TOKEN|KEY|SECRET|PASSWORD|PASSWD)$|PASSWORD$", re.IGNORECASE)
_KEY_OF_SECRET = re.compile(r"(_token|password|secret|api_?key|access_?key)$", re.IGNORECASE)
_SHAPES = (
    re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{20,}\b"),  # Hugging Face
    re.compile(r"\bwandb_v\d_[A-Za-z0-9_]{20,}\b"),
    re.compile(r"\bgithub_pat_\w{20,}\b|\bgh[oprsu]_[A-Za-z0-9]{20,}\b"),
    re.compile(r"\bglpat-[\w-]{20,}"),
    re.compile(r"\bsk-[\w-]{20,}"),
    re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    re.compile(r"\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}"),  # JSON web token
)
# `user:password@` and `token@` of an address, and parameters such as ?token=... (also of a signed S3 address).
_IN_ADDRESS = re.compile(r"(?<=://)[^\s/@'\"]+@")
_PARAMETER = re.compile(
    r"([?&](?:[\w-]*token|[\w-]*key|[\w-]*secret|[\w-]*password|[\w-]*signature|sig)=)[^&\s'\"]+", re.IGNORECASE
)


def redact(value: T) -> T:
    """Return `value` with the secrets in its texts as ***, also inside of dictionaries and lists.

    A secret is: the value of an environment variable whose name ends with _TOKEN, _KEY, _SECRET or PASSWORD; the
    `user:password@` of an address and its parameters of such names; a text that has the shape of a known service's
    token; and the text under a key of such a name in a dictionary.
    """
    return _redact(value, list(_values_of_environment()))  # type: ignore[return-value]  # same type, other texts


def _redact(value: object, secrets: list[str]) -> object:
    if isinstance(value, str):
        return _redact_text(value, secrets)
    if isinstance(value, dict):
        return {
            _redact(name, secrets): HIDDEN
            if isinstance(item, str) and item and isinstance(name, str) and _KEY_OF_SECRET.search(name)
            else _redact(item, secrets)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(_redact(item, secrets) for item in value)
    return value


def _redact_text(text: str, secrets: list[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    if "://" in text:
        text = _IN_ADDRESS.sub(f"{HIDDEN}@", text)
        text = _PARAMETER.sub(rf"\1{HIDDEN}", text)
    for shape in _SHAPES:
        text = shape.sub(HIDDEN, text)
    return text


def _values_of_environment() -> Iterator[str]:
    """Yield the secrets among the environment's values, longest first, since one may contain another."""
    values = {value for name, value in os.environ.items() if _NAME_OF_SECRET.search(name) and len(value) >= SHORTEST}
    for value in sorted(values, key=len, reverse=True):
        if not _is_path(value):  # SSL_KEY=/etc/ssl/key.pem names a file and is none
            yield value


def _is_path(value: str) -> bool:
    try:
        return value.startswith(("/", "~", ".")) and Path(value).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False
