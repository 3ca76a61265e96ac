"""`xlmrxl average`: the mean of several models' weights."""

import sys
from collections.abc import Sequence

from xlmrxl_train.cli.flags import Flag, one_place, read_words
from xlmrxl_train.errors import ConfigError

EXAMPLES = """\
  xlmrxl average runs/xnli/*/model --output soup/
                                      the seeds of one recipe; soup/ is then a run folder as theirs
  xlmrxl average runs/xnli/* --output soup/ --evaluate
                                      also scored on their test set, beside each of them
  xlmrxl average runs/xnli/seed-1 --last 5 --output mean/ --evaluate
                                      the last 5 checkpoints of one run, scored beside the last one"""
_FLAGS = {"--output": Flag(example="soup/", required=True), "--evaluate": Flag(), "--last": Flag(example="5")}


def main(words: Sequence[str]) -> int:
    """Average models, or checkpoints of one run, and perhaps score them.

    Raises:
        ConfigError: A word is wrong, or the models cannot be averaged.
    """
    read = read_words("average", words, _FLAGS)
    from xlmrxl_train.cli.report import show_page
    from xlmrxl_train.deploy import average_checkpoints, average_models  # late: it imports torch

    output, evaluate = read.values["--output"], "--evaluate" in read.values
    if last := read.values.get("--last"):
        if not last.isdigit() or int(last) < 2:
            raise ConfigError(f"--last must be a whole number from 2, got {last}.")
        lines, page = average_checkpoints(one_place("average", read), output, last=int(last), evaluate=evaluate)
    else:
        lines, page = average_models(read.places, output, evaluate=evaluate)
    for line in lines:
        print(line, file=sys.stderr)
    if page is not None:
        show_page(page)
    return 0
