"""`xlmrxl sync`: tell a tracker what it does not know of a run."""

from collections.abc import Sequence

from xlmrxl_train.cli.compose import load_run_config
from xlmrxl_train.cli.flags import Flag, one_place, read_words
from xlmrxl_train.errors import ConfigError

EXAMPLES = """\
  xlmrxl sync runs/xnli/seed-1 --to wandb tracker.mode=online
                                      a run that was offline, or whose server was down, also when it is finished
  xlmrxl sync runs/xnli/seed-1 --to mlflow tracker.mlflow_uri=https://mlflow.example.org
                                      a run that never had this tracker
tracker.json in the run's folder says what each tracker knows already; the rest comes from metrics.jsonl."""
_FLAGS = {
    "--to": Flag(example="wandb", choices=("wandb", "tensorboard", "mlflow", "trackio"), required=True),
}


def main(words: Sequence[str]) -> int:
    """Tell the tracker; return 1 where it failed.

    Raises:
        ConfigError: A word is wrong, or the tracker cannot be used.
        RunError: The folder holds no run, or one that is running.
    """
    read = read_words("sync", words, _FLAGS)
    keys = [word for word in read.places if "=" in word]
    if wrong := [word for word in keys if not word.startswith("tracker.")]:
        raise ConfigError(*(f"{word} is no key of the tracker, as tracker.mode is. Leave it out." for word in wrong))
    read.places = [word for word in read.places if word not in keys]
    config = load_run_config(one_place("sync", read), keys)
    from xlmrxl_train.sync import sync  # late: it imports torch

    return 0 if sync(config, read.values["--to"]) else 1
