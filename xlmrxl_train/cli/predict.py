"""`xlmrxl predict`: labels, tags, answers or choices of a trained run for the rows of a file."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from xlmrxl_train.cli.answering import FLAGS, write_all
from xlmrxl_train.cli.compose import load_run_config
from xlmrxl_train.cli.flags import Flag, one_place, read_words

if TYPE_CHECKING:
    from xlmrxl_train.inference.streaming import Outcome

EXAMPLES = """\
  xlmrxl predict runs/xnli/seed-1 --input pairs.tsv --output labels.jsonl
  xlmrxl predict runs/panx/seed-1 --input sentences.jsonl --on-error skip      words as a list, or with blanks between
  xlmrxl predict runs/xquad/seed-1 --input questions.json --language de        SQuAD's JSON, or lines of JSON

The file is .tsv (the first line names the columns), .csv, .jsonl, .parquet, .conll, .conllu or SQuAD's .json. Columns
have the names of the run's data set, or those of their roles (text, text_pair; tokens; context, question; choice1 ...).
Without --output the lines go to standard output. Each is JSON with the number of its line, or of its record from 0.
--on-error skip reports a bad row, goes on, and ends with exit code 1; stop, the default, ends and leaves no file."""
_FLAGS = {**FLAGS, "--input": Flag(example="pairs.tsv", required=True), "--language": Flag(example="de")}


def main(words: Sequence[str]) -> int:
    """Predict; return 1 where some rows were left out.

    Raises:
        ConfigError: A word is wrong.
        RunError: There is no such run.
        DataError: A row is wrong, and --on-error is stop.
    """
    said = read_words("predict", words, _FLAGS)
    values, folder = said.values, one_place("predict", said)
    config = load_run_config(folder)
    from xlmrxl_train.inference.lines import read_rows
    from xlmrxl_train.inference.opening import device_of, dtype_of
    from xlmrxl_train.inference.predicting import open_run
    from xlmrxl_train.inference.writing import check_output

    check_output(values.get("--output"))
    predictor = open_run(
        folder,
        config,
        dtype=dtype_of(values.get("--dtype")),
        device=device_of(values.get("--device")),
        language=values.get("--language", ""),
    )
    outcomes = predictor.outcomes(read_rows(values["--input"]))

    def line_of(outcome: "Outcome") -> str:
        identity = {"line" if outcome.input.by_line else "row": outcome.input.number}
        name = config.dataset.id_column
        if name and name in outcome.input.value:
            identity["id"] = outcome.input.value[name]
        return json.dumps({**identity, **outcome.result}, ensure_ascii=False) + "\n"

    return write_all("predict", outcomes, line_of, values.get("--output"), values.get("--on-error", "stop"))
