"""`xlmrxl quantize`: smaller weights, and what they cost in each language."""

import sys
from collections.abc import Sequence

from xlmrxl_train.cli.flags import Flag, one_place, read_words
from xlmrxl_train.errors import ConfigError

EXAMPLES = """\
  xlmrxl quantize runs/xnli/seed-1 --to int8 --output small/
  xlmrxl quantize runs/xnli/seed-1 --to int4 --group-size 128 --embeddings int8 --output small/
                                      ends with a table of the languages, those that lose most first
  xlmrxl quantize facebook/xlm-roberta-xl --to int4 --output small/
                                      what belongs to no run is not scored; nor is --no-evaluate"""
_FLAGS = {
    "--to": Flag(example="int8", choices=("int8", "int4"), required=True),
    "--group-size": Flag(example="128"),
    "--embeddings": Flag(example="int8", choices=("bf16", "int8")),
    "--output": Flag(example="small/", required=True),
    "--no-evaluate": Flag(),
}


def main(words: Sequence[str]) -> int:
    """Quantize one model and show what it costs.

    Raises:
        ConfigError: A word is wrong, or the model cannot be quantized so.
    """
    read = read_words("quantize", words, _FLAGS)
    place, size = one_place("quantize", read), read.values.get("--group-size", "128")
    if not size.isdecimal() or len(size) > 6:
        raise ConfigError(f"--group-size must be a number, got {size[:40]!r}. Write --group-size 128.")
    from xlmrxl_train.cli.report import show_page
    from xlmrxl_train.deploy import quantize_model  # late: they import torch

    lines, page = quantize_model(
        place,
        read.values["--output"],
        weights=read.values["--to"],
        group_size=int(size),
        embeddings=read.values.get("--embeddings", "bf16"),
        evaluate="--no-evaluate" not in read.values,
    )
    for line in lines:
        print(line, file=sys.stderr)
    if page is not None:
        show_page(page)
    return 0
