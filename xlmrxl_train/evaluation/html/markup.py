"""Texts of data sets in a page: escaped, in a direction and a language of their own, with nothing hidden in them."""

import json
import unicodedata
from typing import Any

from markupsafe import Markup, escape

from xlmrxl_train.data.languages import language as describe

_BREAKS = "\n\t"
_UNSEEN = ("Cc", "Cs", "Cn", "Co", "Zl", "Zp")  # controls, lone surrogates, nothing, private ones, other breaks
# Embeddings, overrides and isolates turn the order of what follows them, tags and spaces of no width hide text. Joiners
# and marks of direction are part of many scripts and stay.
_MISLEADING = {
    chr(code)
    for code in (0x200B, 0x2060, 0xFEFF, *range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xE0000, 0xE0080))
}


def shown(text: object) -> Markup:
    """Return a text for HTML, in which characters that cannot be seen or that mislead are named instead: U+202E."""
    parts = []
    for letter in str(text):
        if letter in _MISLEADING or (unicodedata.category(letter) in _UNSEEN and letter not in _BREAKS):
            parts.append(f'<span class="control">U+{ord(letter):04X}</span>')
        else:
            parts.append(str(escape(letter)))
    return Markup("".join(parts))


def tag_of(code: str) -> str:
    """Return the BCP 47 tag of a data set's language: "zho_Hans" -> "zh-Hans"."""
    entry = describe(code)
    return f"{entry.base}-{entry.script}" if len(entry.script) == 4 else entry.base


def script_data(value: Any) -> Markup:
    """Return JSON that can stand in a <script> element: no text in it ends the element or begins a comment."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))
