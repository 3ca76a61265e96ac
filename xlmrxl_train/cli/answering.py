"""What `xlmrxl run` and `xlmrxl predict` share: outcomes become lines, and faults are reported or end the command."""

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from xlmrxl_train.cli.flags import Flag

if TYPE_CHECKING:
    from xlmrxl_train.inference.streaming import Outcome

FLAGS = {
    "--input": Flag(example="pairs.tsv"),
    "--output": Flag(example="answers.jsonl"),
    "--device": Flag(example="0"),
    "--dtype": Flag(example="bfloat16"),
    "--on-error": Flag(example="skip", choices=("stop", "skip")),
}


def write_all(
    name: str, outcomes: "Iterable[Outcome]", line_of: "Callable[[Outcome], str]", output: str | None, on_error: str
) -> int:
    """Write a line for every result and return the exit code: 1 where faulty lines were left out.

    Args:
        name: Of the command, beside the count in a terminal.
        outcomes: In order.
        line_of: What to write of one that has a result.
        output: A file, which then appears whole or not at all; None: standard output.
        on_error: stop: the first one ends the command; skip: each is reported and its line left out.

    Raises:
        DataError: An input is faulty, and on_error is "stop".
        ConfigError: The file cannot be written.
    """
    from xlmrxl_train.inference.writing import output as opened
    from xlmrxl_train.track.console import Console

    count = left_out = 0
    shows = sys.stderr.isatty() and (output is not None or not sys.stdout.isatty())
    with opened(output) as write, Console(enabled=shows).count(name, None) as advance:
        for outcome in outcomes:
            count += 1
            advance()
            if outcome.fault is None:
                write(line_of(outcome))
            elif on_error == "stop":
                raise outcome.fault
            else:
                left_out += 1
                print(f"error: {outcome.fault}", file=sys.stderr, flush=True)
    if left_out:
        print(f"left out: {left_out:,} of {count:,}", file=sys.stderr)
    return 1 if left_out else 0
