"""Text by lines: sentences with a tag per token (CoNLL, CoNLL-U), and plain text."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from xlmrxl_train.config import FileSet
from xlmrxl_train.data.examples import SentencePlace
from xlmrxl_train.data.files import shown, text_lines
from xlmrxl_train.errors import DataError


def read_text(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every line as `text`, empty ones too, so that parallel files stay parallel."""
    for number, line in text_lines(path):
        yield f"{path}:{number}", {"text": line}


def read_conll(path: Path, files: FileSet) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield sentences: one token per line, blank lines between; columns `tokens` (first) and `tags` (last).

    With `column_names`, the columns have those names instead.
    """
    names, width, split = files.column_names, len(files.column_names), None
    for number, lines in _blocks(path):
        rows: list[list[str]] = []
        places: list[int] = []
        for offset, line in enumerate(lines):
            if line.startswith("-DOCSTART-"):
                continue
            split = split or _splitter(files.separator or ("\t" if "\t" in line else None))
            fields = split(line)
            width = width or max(2, len(fields))
            if len(fields) != width:
                raise DataError(
                    f"{path}:{number + offset}: expected {width} columns, found {len(fields)}. "
                    "Mend the line, or set the separator or column_names of its files."
                )
            rows.append(fields)
            places.append(number + offset)
        if rows:
            columns = [list(column) for column in zip(*rows, strict=True)]
            named = zip(names, columns, strict=True) if names else (("tokens", columns[0]), ("tags", columns[-1]))
            yield SentencePlace(path, number, places), dict(named)


def _splitter(separator: str | None) -> Callable[[str], list[str]]:
    if separator is None:  # spaces only: other white space of Unicode may be a token
        return lambda line: re.split(" +", line.strip(" "))
    return lambda line: line.split(separator)


def read_conllu(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield sentences of Universal Dependencies: `tokens`, `tags` (UPOS), `xpos`, and `sent_id` and `text` if given.

    Words are the lines with a whole number as id; ranges (a multi-word token's surface form, 1-2) and empty nodes
    (2.1) are not words: https://universaldependencies.org/format.html.
    """
    import conllu

    # Only what is asked for is parsed: dependencies and features are left as text.
    keep = dict.fromkeys(("feats", "head", "deps", "misc"), lambda line, index: line[index])
    for number, lines in _blocks(path):
        places: list[int] = []  # the line of each word
        for offset, line in enumerate(lines):
            if line.startswith("#"):
                continue
            where = f"{path}:{number + offset}"
            if (found := line.count("\t") + 1) != len(conllu.parser.DEFAULT_FIELDS):
                raise DataError(f"{where}: expected the 10 columns of CoNLL-U, found {found}. Mend the line.")
            id_ = line.partition("\t")[0]
            if id_ == str(len(places) + 1):
                places.append(number + offset)
            elif not _NO_WORD.fullmatch(id_):
                raise DataError(
                    f"{where}: expected the id {len(places) + 1} of the next word, a range (1-2) or an empty node "
                    f"(1.1), found {shown(id_)}. Mend the line."
                )
        try:
            sentences = conllu.parse("\n".join(lines), field_parsers=keep)
        except conllu.exceptions.ParseException as error:
            raise DataError(f"{path}:{number}: expected a CoNLL-U sentence, found {error}. Mend it.") from error
        for sentence in sentences:
            words = [token for token in sentence if isinstance(token["id"], int)]
            values: dict[str, Any] = {
                name: value for name, value in sentence.metadata.items() if name in ("sent_id", "text")
            }
            for column, field in (("tokens", "form"), ("tags", "upos"), ("xpos", "xpos")):
                values[column] = [word[field] for word in words]
            if words:
                yield SentencePlace(path, number, places), values


_NO_WORD = re.compile(r"[0-9]+[-.][0-9]+")


def _blocks(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of its first line, lines) of each run of lines that are not blank."""
    block: list[str] = []
    number = 0
    for number, line in text_lines(path):
        if line.strip(" \t"):
            block.append(line)
        elif block:
            yield number - len(block), block
            block = []
    if block:
        yield number - len(block) + 1, block
