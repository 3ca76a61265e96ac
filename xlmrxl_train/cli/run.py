"""`xlmrxl run`: a pipeline over the lines of standard input or of a file."""

import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from xlmrxl_train.cli.answering import FLAGS, write_all
from xlmrxl_train.cli.flags import Flag, read_words
from xlmrxl_train.errors import ConfigError

if TYPE_CHECKING:
    from xlmrxl_train.inference.streaming import Outcome

# Task -> what a line of text is; inference.making knows the same ones.
TASKS = {
    "fill-mask": "a text with <mask>",
    "text-classification": "a text, or two with a tab between",
    "token-classification": "a text",
    "question-answering": "a question, a tab, a context",
    "multiple-choice": "a text, a tab, choices with tabs between",
    "feature-extraction": "a text",
    "sentence-embeddings": "a text",
    "text-generation": "the beginning of a text",
}
EXAMPLES = "\n".join(
    [
        "  echo 'Plants create <mask>.' | xlmrxl run --task fill-mask --model facebook/xlm-roberta-xl --device 0",
        "  xlmrxl run --task text-classification --model runs/xnli/seed-1 --input pairs.txt --json --on-error skip",
        "  xlmrxl run --task text-generation --model runs/clm/seed-1 do_sample=true temperature=0.8 seed=1",
        "",
        "tasks, and what a line is",
        *(f"  {name:<24}{line}" for name, line in TASKS.items()),
        "",
        "Of a file that ends in .jsonl each line is what the pipeline takes in Python, as JSON. key=value sets the",
        "pipeline's options; window=1 answers each line before the next one is read, else 2048 are sorted together.",
        "Without --json: tabs between the number of the line, the score and the rest.",
        "--on-error skip reports a bad line, goes on, and ends with exit code 1; stop, the default, ends at once.",
    ]
)
_FLAGS = {
    "--task": Flag(example="fill-mask", choices=tuple(TASKS), required=True),
    "--model": Flag(example="facebook/xlm-roberta-xl", required=True),
    "--revision": Flag(example="main"),
    "--tokenizer": Flag(example="tokenizer.json"),
    "--top-k": Flag(example="5"),
    "--json": Flag(),
    **FLAGS,
}
_TERMINAL_WINDOW = 1  # who types sees each answer at once


def main(words: Sequence[str]) -> int:
    """Answer lines; return 1 where some were left out.

    Raises:
        ConfigError: A word is wrong.
        DataError: A line is, and --on-error is stop.
    """
    said = read_words("run", words, _FLAGS)
    values, options = said.values, _options(said.places)
    if "--top-k" in values:
        options["top_k"] = _value("--top-k", values["--top-k"])
    from xlmrxl_train.inference.lines import STANDARD_INPUT, read_lines
    from xlmrxl_train.inference.making import pipeline
    from xlmrxl_train.inference.writing import check_output

    check_output(values.get("--output"))
    source = values.get("--input", STANDARD_INPUT)
    if source == STANDARD_INPUT and sys.stdin is not None and sys.stdin.isatty():
        print(f"reading standard input, a line is {TASKS[values['--task']]}; Ctrl-D ends it", file=sys.stderr)
        options.setdefault("window", _TERMINAL_WINDOW)
    pipe = pipeline(
        values["--task"],
        values["--model"],
        tokenizer=values.get("--tokenizer"),
        dtype=values.get("--dtype"),
        device=values.get("--device"),
        revision=values.get("--revision"),
        **options,
    )
    outcomes = pipe.outcomes(read_lines(source, pipe.parse))
    return write_all(
        "run",
        outcomes,
        _json if "--json" in values else _text,
        values.get("--output"),
        values.get("--on-error", "stop"),
    )


def _options(words: Sequence[str]) -> dict[str, Any]:
    options = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"run takes flags and key=value, got {word}. Write --input {word} for a file.")
        if f"--{name}" in _FLAGS:
            raise ConfigError(f"{name} is a flag of run, got {word}. Write --{name} {value}.")
        if name == "return_tensors":
            raise ConfigError(f"return_tensors is for Python, got {word}. Leave it out.")
        options[name] = _value(name, value)
    return options


def _value(name: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError):  # 2020-13-45, !!int, !!timestamp
        raise ConfigError(f"{name} must be a number, a word or a [list], got {text}. Quote it.") from None


def _json(outcome: "Outcome") -> str:
    return json.dumps({"line": outcome.input.number, "result": outcome.result}, ensure_ascii=False) + "\n"


def _text(outcome: "Outcome") -> str:
    return "".join("\t".join([str(outcome.input.number), *fields]) + "\n" for fields in _rows(outcome.result))


def _rows(result: Any) -> Iterator[list[str]]:
    """Yield the fields of each line that a result has in text."""
    if isinstance(result, dict):
        names = sorted(result, key=lambda name: name != "score")  # the score comes first, the rest as it was
        yield [_shown(result[name]) for name in names]
    elif isinstance(result, list) and result and isinstance(result[0], float):
        yield [" ".join(map(_shown, result))]
    elif isinstance(result, list):
        for part in result:
            yield from _rows(part)


def _shown(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return " ".join(text.split("\t")).replace("\n", " ")
