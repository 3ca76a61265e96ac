"""`xlmrxl export`: a model in the form that another program reads."""

import sys
from collections.abc import Sequence

from xlmrxl_train.cli.flags import Flag, one_place, read_words

EXAMPLES = """\
  xlmrxl export runs/xnli/seed-1 --to transformers --output folder/
                                      the Hub's layout, with a model card written from the run
  xlmrxl export runs/xnli/seed-1 --to transformers --output folder/ --dtype bf16 --license mit
  xlmrxl export runs/xnli/seed-1 --to onnx --output folder/
                                      model.onnx, checked with onnxruntime on several lengths and batch sizes
  xlmrxl export runs/xnli/lora --to adapter --output folder/
                                      the adapter alone, as peft reads it"""
DTYPES = ("bf16", "fp16", "fp32")
_FLAGS = {
    "--to": Flag(example="transformers", choices=("transformers", "onnx", "adapter"), required=True),
    "--output": Flag(example="folder/", required=True),
    "--dtype": Flag(example="bf16", choices=DTYPES),
    "--license": Flag(example="mit"),
}


def main(words: Sequence[str]) -> int:
    """Export one model.

    Raises:
        ConfigError: A word is wrong.
        CheckpointError: The model cannot be read or written, or what was written is not the model.
    """
    read = read_words("export", words, _FLAGS)
    place = one_place("export", read)
    from xlmrxl_train.inference.export.exporting import export  # late: it imports torch

    for line in export(
        place,
        to=read.values["--to"],
        output=read.values["--output"],
        dtype=read.values.get("--dtype"),
        licence=read.values.get("--license"),
    ):
        print(line, file=sys.stderr)
    return 0
