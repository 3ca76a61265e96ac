"""`xlmrxl average`: the mean of several models' weights."""

import sys
from collections.abc import Sequence

from xlmrxl_train.cli.flags import Flag, read_words

EXAMPLES = """\
  xlmrxl average runs/xnli/*/model --output soup/
                                      the seeds of one recipe; soup/ is then a run folder as theirs
  xlmrxl average runs/xnli/* --output soup/ --evaluate
                                      also scored on their test set, beside each of them"""
_FLAGS = {"--output": Flag(example="soup/", required=True), "--evaluate": Flag()}


def main(words: Sequence[str]) -> int:
    """Average models and perhaps score them.

    Raises:
        ConfigError: A word is wrong, or the models cannot be averaged.
    """
    read = read_words("average", words, _FLAGS)
    from xlmrxl_train.cli.report import show_page
    from xlmrxl_train.deploy import average_models  # late: it imports torch

    lines, page = average_models(read.places, read.values["--output"], evaluate="--evaluate" in read.values)
    for line in lines:
        print(line, file=sys.stderr)
    if page is not None:
        show_page(page)
    return 0
