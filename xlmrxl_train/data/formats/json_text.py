"""JSON: one object per line, and SQuAD's one document."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xlmrxl_train.data.files import text_lines, whole_text
from xlmrxl_train.errors import DataError


def read_jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield one object per line.

    Raises:
        DataError: A line is not a JSON object.
    """
    blank: int | None = None
    for number, line in text_lines(path):
        if blank is not None:
            raise DataError(f"{path}:{blank}: expected a JSON object, found a blank line. Remove it.")
        if not line.strip():
            blank = number
            continue
        value = parsed(line, path, number)
        if not isinstance(value, dict):
            raise DataError(
                f"{path}:{number}: expected a JSON object, found {type(value).__name__}. "
                'Write each line as {"column": value, ...}.'
            )
        yield f"{path}:{number}", value


def read_squad(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield questions of SQuAD's JSON: `id`, `title`, `context`, `question`, and `answers`, if any, as the Hub does."""
    document = parsed(whole_text(path), path, 1)
    for i, article in enumerate(_field(document, "data", list, str(path))):
        for j, paragraph in enumerate(_field(article, "paragraphs", list, f"{path} data[{i}]")):
            place = f"{path} data[{i}].paragraphs[{j}]"
            context = _field(paragraph, "context", str, place)
            for k, question in enumerate(_field(paragraph, "qas", list, place)):
                where = f"{place}.qas[{k}]"
                record = {
                    "id": _field(question, "id", str, where),
                    "title": article.get("title"),
                    "context": context,
                    "question": _field(question, "question", str, where),
                }
                if "answers" in question:  # what is still to be answered has none
                    answers = _field(question, "answers", list, where)
                    record["answers"] = {
                        "text": [_field(answer, "text", str, where) for answer in answers],
                        "answer_start": [_field(answer, "answer_start", int, where) for answer in answers],
                    }
                yield where, record


def parsed(text: str, path: Path | str, number: int) -> Any:
    """Parse JSON that begins on line `number`, refusing what JSON or UTF-8 cannot hold."""

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    try:
        value = json.loads(text, parse_constant=refuse)
        if "\\u" in text:  # an escape may stand for half a character, which no tokenizer takes
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        line = number + (error.lineno - 1 if isinstance(error, json.JSONDecodeError) else 0)
        raise DataError(f"{path}:{line}: expected JSON, found a fault ({error}). Mend the line.") from error
    return value


def _field(value: Any, name: str, kind: type, where: str) -> Any:
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, kind):
        raise DataError(
            f"{where}: expected {name!r} as {kind.__name__}, as in SQuAD's JSON, found {type(found).__name__}. Mend it."
        )
    return found
