"""The Universal Declaration of Human Rights in XML, as eric-muller/udhr has it in some 500 languages.

<udhr><title/> <note><para/></note> <preamble><title/><para/></preamble>
<article number="1"><title/><para/> <orderedlist><listitem><para/></listitem></orderedlist></article></udhr>
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.parsers import expat

from xlmrxl_train.data.files import shown, text_lines
from xlmrxl_train.errors import DataError

_TEXTS = ("title", "para")
_DEEPEST = 16  # elements within one another; the format has 5


def read_udhr(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield titles and paragraphs in their order.

    Columns: `id`, as "article-11/orderedlist/listitem-2/para-1", counted within the parent, so that translations share
    most of them; `part`, which is "title" or "para"; `text`, with its white space made single spaces.

    Nothing but elements and text is read: a DOCTYPE, which could define entities that grow or name files, is refused.

    Raises:
        DataError: It is not well-formed UTF-8 XML, has a DOCTYPE, or is no such document.
    """
    reader = _Reader(path)
    for _, line in text_lines(path):
        reader.feed(line + "\n", last=False)
        yield from reader.taken()
    reader.feed("", last=True)
    yield from reader.taken()


class _Reader:
    """A parser that keeps what it read until it is taken."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack: list[_Element] = []
        self._found: list[tuple[str, dict[str, Any]]] = []
        self._parser = expat.ParserCreate(encoding="utf-8", namespace_separator=" ")
        self._parser.buffer_text = True
        self._parser.StartDoctypeDeclHandler = self._refuse_doctype
        self._parser.StartElementHandler = self._start
        self._parser.CharacterDataHandler = self._text
        self._parser.EndElementHandler = self._end

    def feed(self, text: str, *, last: bool) -> None:
        try:
            self._parser.Parse(text, last)
        except expat.ExpatError as error:
            raise DataError(
                f"{self._path}:{error.lineno}: expected well-formed XML, found a fault "
                f"({expat.ErrorString(error.code)}). Mend the line."
            ) from error

    def taken(self) -> list[tuple[str, dict[str, Any]]]:
        found, self._found = self._found, []
        return found

    @property
    def _where(self) -> str:
        return f"{self._path}:{self._parser.CurrentLineNumber}"

    def _refuse_doctype(self, *_: object) -> None:
        raise DataError(f"{self._where}: expected XML without a DOCTYPE, found one. Remove it, and write entities out.")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        name = tag.rpartition(" ")[2]
        if not self._stack and name != "udhr":
            raise DataError(
                f"{self._where}: expected the document element <udhr>, found {shown(name)}. "
                "Set the format of its files, or leave the file out."
            )
        if len(self._stack) == _DEEPEST:
            raise DataError(
                f"{self._where}: expected at most {_DEEPEST} elements within one another, found more. Mend the file."
            )
        if self._stack and self._stack[-1].name in _TEXTS:
            raise DataError(
                f"{self._where}: expected text alone in <{self._stack[-1].name}>, found {shown(name)}. Mend the line."
            )
        parent = self._stack[-1].child(name, attributes.get("number")) if self._stack else ""
        self._stack.append(_Element(name, parent, self._where))

    def _text(self, text: str) -> None:
        if self._stack[-1].name in _TEXTS:
            self._stack[-1].text.append(text)
        elif text.strip():
            raise DataError(f"{self._where}: expected text in <title> or <para> only, found {shown(text.strip())}. "
                            "Mend the line.")  # fmt: skip

    def _end(self, _: str) -> None:
        element = self._stack.pop()
        text = re.sub(r"[ \t\r\n]+", " ", "".join(element.text)).strip(" ")
        if element.name in _TEXTS and text:
            self._found.append((element.where, {"id": element.place, "part": element.name, "text": text}))


class _Element:
    def __init__(self, name: str, place: str, where: str) -> None:
        self.name, self.place, self.where = name, place, where
        self.text: list[str] = []
        self._children: dict[str, int] = {}

    def child(self, name: str, number: str | None) -> str:
        """Return where the next child of this name stands."""
        self._children[name] = count = self._children.get(name, 0) + 1
        own = name if name in ("title", "preamble", "note", "orderedlist") and count == 1 else f"{name}-{count}"
        if number is not None:
            own = f"{name}-{number}"
        return f"{self.place}/{own}" if self.place else own
