"""`xlmrxl tune`: search for the settings that score best on the validation split."""

import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from xlmrxl_train.checks.tasks import WITHOUT_TRAINING
from xlmrxl_train.cli.compose import compose_config
from xlmrxl_train.cli.flags import Flag, read_words
from xlmrxl_train.cli.library import Library, library
from xlmrxl_train.cli.runs import table
from xlmrxl_train.cli.search_space import read_search
from xlmrxl_train.config import Config
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.launcher import launched
from xlmrxl_train.search.space import Search

if TYPE_CHECKING:
    from xlmrxl_train.search.working import Worker

EXAMPLES = """\
  xlmrxl tune recipe=xnli --trials 20          20 runs below runs/xnli/tune, drawn from conf/search/fine_tuning.yaml
  xlmrxl tune recipe=xnli --trials 20 --workers 4      4 at a time, each with a fourth of this machine's GPUs
  xlmrxl tune recipe=xnli --trials 20 --storage journal
                                               the same command on other machines joins: the folder must be shared
  xlmrxl tune recipe=xnli train.batch_size=32 --search mine.yaml --name wide --launcher 'launch/local.sh -n 8'
  xlmrxl tune recipe=xnli --write-wandb-sweep sweep.yaml && wandb sweep sweep.yaml

  --search       a name in conf/search/ (or in search/ of --config-dir), or a file: fine_tuning, lora, mine.yaml
  --storage      sqlite (the default) | journal, both in the study's folder | postgresql://...
  --launcher     what starts a trial in place of python -m xlmrxl_train
  --keep-models  keep the model and checkpoints of every trial, not only the best one's model

The same command goes on with a study, also after a kill. Only the validation split is looked at; keys of the command
line are not searched. trials.jsonl, best.sh and logs/ lie in the study's folder, trial-0/, trial-1/, ... are runs."""
_FLAGS = {
    "--trials": Flag(example="20"),
    "--workers": Flag(example="2"),
    "--name": Flag(example="tune"),
    "--search": Flag(example="fine_tuning"),
    "--storage": Flag(example="journal"),
    "--launcher": Flag(example="'launch/local.sh -n 8'"),
    "--keep-models": Flag(),
    "--write-wandb-sweep": Flag(example="sweep.yaml"),
    "--config-dir": Flag(example="DIR"),
}
_OURS = ("run.name", "run.resume", "evaluate.test")  # keys that a study sets
STOPPED = 75  # asked to stop by a signal; the same command goes on


def main(words: Sequence[str]) -> int:
    """Search; return 1 where no trial has finished, 75 where a signal stopped the search.

    Raises:
        ConfigError: A word or the search is wrong.
        RunError: The folder holds another study, or cannot be used.
        KeyboardInterrupt: After the table, where Ctrl-C stopped the search.
    """
    read = read_words("tune", words, _FLAGS)
    values = read.values
    if launched().size > 1:
        raise ConfigError("tune starts its trials itself and cannot run under torchrun. Give torchrun as --launcher.")
    if taken := [word for word in read.places if word.partition("=")[0] in _OURS]:
        raise ConfigError(*(f"{word.partition('=')[0]} is set by tune, got {word}. Leave it out." for word in taken))
    counts = {
        flag: _count(flag, values.get(flag, default)) for flag, default in (("--trials", "20"), ("--workers", "1"))
    }
    name, own = values.get("--name", "tune"), values.get("--config-dir")
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name) or ".." in name:
        raise ConfigError(f"--name must be a folder's name of letters, digits, . _ and -, got {name}.")
    common = [*read.places, "evaluate.test=false"]
    files = library(own)
    base, other = (_composed([*common, f"run.name={name}/trial-{number}"], files) for number in (0, 1))
    _check(base, other)
    search = read_search(values.get("--search", "fine_tuning"), base, common, files)
    own_words = [] if own is None else ["--config-dir", own]
    if not any(word.startswith("tracker.group=") for word in common):
        common.append(f"tracker.group='{base.run.recipe} {name}'")
    if "--write-wandb-sweep" in values:
        return _write_sweep(values["--write-wandb-sweep"], search, base, [*own_words, *read.places])
    if find_spec("optuna") is None:
        raise ConfigError("tune needs the package optuna, found none. Run pip install 'xlmrxl_train[tune]'.")
    from xlmrxl_train.search.study import Claim, Study  # late: an optional package
    from xlmrxl_train.search.working import Worker, devices

    launcher = _launcher(values["--launcher"]) if "--launcher" in values else [sys.executable, "-m", "xlmrxl_train"]
    study = Study(Path(base.run.dir).parent, values.get("--storage", "sqlite"), search, base)

    def command(claim: Claim) -> list[str]:
        return [*launcher, *own_words, *common, *_overrides(claim.parameters), f"run.name={name}/{claim.name}"]

    def best_command(parameters: Mapping[str, str]) -> list[str]:
        start = launcher if "--launcher" in values else [sys.executable, "-m", "xlmrxl_train"]
        return [*start, *own_words, *read.places, *_overrides(parameters), f"run.name={name}-best"]

    worker = Worker(
        study=study,
        command=command,
        best_command=best_command,
        folder=lambda claim: study.folder / claim.name,
        select=base.evaluate.select,
        workers=counts["--workers"],
        devices=devices(counts["--workers"], base.strategy.device),
        keep_models="--keep-models" in values,
        say=lambda line: print(line, flush=True),
    )
    asked = worker.work(counts["--trials"])
    return _conclude(worker, asked, shlex.join(["xlmrxl", "tune", *words]))


def _composed(words: Sequence[str], files: Library) -> Config:
    config, faults = compose_config(words, files)
    if faults:
        raise ConfigError(*faults)
    return config


def _count(flag: str, text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise ConfigError(f"{flag} must be a whole number from 1, got {text}.")
    return int(text)


def _launcher(text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError:  # a quote that is not closed
        words = []
    if not words or shutil.which(words[0]) is None:
        raise ConfigError(f"--launcher must be a program with its words, got {text}. Check its path and quotes.")
    return words


def _overrides(parameters: Mapping[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in parameters.items()]


def _check(first: Config, second: Config) -> None:
    """Make sure that trials are scored, and have folders of their own beside each other."""
    folders = [Path(config.run.dir) for config in (first, second)]
    if [folder.name for folder in folders] != ["trial-0", "trial-1"] or folders[0].parent != folders[1].parent:
        raise ConfigError(
            f"run.dir must end in ${{run.name}}, got {first.run.dir} for the first trial. Leave it out, or write "
            "'run.dir=/data/${run.name}'."
        )
    if first.task.kind in WITHOUT_TRAINING:
        raise ConfigError(f"tune needs a task that trains, got task={first.task.kind}. Choose another recipe.")
    if first.evaluate.every == 0:
        raise ConfigError(
            "tune needs looks at the validation split, got evaluate.every=0. Set it to null, or to steps."
        )


def _write_sweep(place: str, search: Search, base: Config, words: Sequence[str]) -> int:
    from xlmrxl_train.search.wandb_sweep import wandb_sweep

    command = ["python", "-m", "xlmrxl_train", *words, "tracker=wandb", "tracker.mode=online", "evaluate.test=false"]
    text = yaml.safe_dump(wandb_sweep(search, base, command), sort_keys=False, allow_unicode=True)
    try:
        Path(place).write_text(f"# wandb sweep {place}\n{text}", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--write-wandb-sweep must be a file, got {place}: {error.strerror}.") from None
    print(f"written: {place}; wandb sweep {place} begins it, wandb agent runs it")
    return 0


def _conclude(worker: "Worker", asked: str | None, again: str) -> int:
    """Print the trials and the best of them; return the exit code."""
    from xlmrxl_train.search.results import best_of, table_of

    folder, rows, metric = worker.study.folder, worker.study.rows(), worker.study.metric
    best = best_of(rows, metric)
    print(table(table_of(rows, metric)))
    if best:
        print(f"best: trial {best.number}: {' '.join(_overrides(best.parameters))}")
        if (Path(best.folder) / "model").is_dir() or (Path(best.folder) / "adapter").is_dir():
            print(f"score its model on the test split: xlmrxl evaluate {shlex.quote(best.folder)}")
        print(f"or train it anew: {folder / 'best.sh'}    all trials: {folder / 'trials.jsonl'}", flush=True)
    if asked:
        print(f"stopped by {asked}; to go on: {again}", file=sys.stderr, flush=True)
        if asked == "Ctrl-C":
            raise KeyboardInterrupt
        return STOPPED
    return 0 if best else 1
