"""The command line: read the arguments, compose one `Config`, hand over to `xlmrxl_train.run`.

Only this package imports Hydra. Nothing here imports torch, so that help and faults come at once.
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module

import yaml

from xlmrxl_train import __version__
from xlmrxl_train.cli import help as help_text
from xlmrxl_train.cli.compose import compose_config, load_config, load_run_config
from xlmrxl_train.cli.library import library
from xlmrxl_train.cli.sweep import sweep
from xlmrxl_train.config import Config, to_dict
from xlmrxl_train.errors import FROM_FIRST_RANK, ConfigError, RankLostError, UserError
from xlmrxl_train.launcher import check_copies, is_first, launched
from xlmrxl_train.spelling import did_you_mean

__all__ = ["COMMANDS", "Command", "load_config", "load_run_config", "main"]

INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """A sub-command: `main` gets the words after its name and returns the exit code."""

    arguments: str
    help: str
    main: Callable[[Sequence[str]], int]


@dataclass(kw_only=True, slots=True)
class Arguments:
    """The words of a command that composes a configuration."""

    overrides: list[str] = field(default_factory=list)
    config_dir: str | None = None
    show_config: bool = False
    multirun: bool = False
    help: str | None = None  # what follows --help; "": nothing


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0 done, 1 a job of a sweep or another rank failed, 2 the user's fault, 130 Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        launched()
        if words and words[0] == "--version":
            print(f"xlmrxl_train {__version__}")
            return 0
        if words and words[0] in COMMANDS:
            return COMMANDS[words[0]].main(words[1:])
        if words and "=" not in words[0] and not words[0].startswith(("-", "+", "~")):
            hint = did_you_mean(words[0], COMMANDS, f"There are {', '.join(COMMANDS)}.")
            raise ConfigError(f"{words[0]} is not a command. {hint}")
        return _train(words)
    except UserError as error:
        faults = error.faults if isinstance(error, ConfigError) else (str(error),)
        _say(*(f"error: {fault}" for fault in faults))
        return 2
    except RankLostError as error:
        print(f"rank {launched().rank}: error: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # `xlmrxl --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _train(words: Sequence[str]) -> int:
    arguments = _read("train", words)
    return _help(arguments.help) if arguments.help is not None else _composed("train", arguments)


def _prepare(words: Sequence[str]) -> int:
    arguments = _read("prepare", words)
    return _usage("prepare") if arguments.help is not None else _composed("prepare", arguments)


def _evaluate(words: Sequence[str]) -> int:
    if not words or words[0].startswith("-h") or words[0] == "--help":
        _usage("evaluate")
        return 0 if words else 2
    folder, arguments = words[0], _read("evaluate", words[1:])
    if arguments.help is not None:
        return _usage("evaluate")
    if arguments.multirun:
        raise ConfigError("evaluate takes no -m: every job would write the report of the same run.")

    def compose() -> Config:
        return load_run_config(folder, arguments.overrides, config_dir=arguments.config_dir)

    if arguments.show_config:
        return _print_config(compose())
    return _launch("evaluate", compose)


def _plan(words: Sequence[str]) -> int:
    arguments = _read("plan", [word for word in words if word != "--json"])
    if arguments.multirun:
        raise ConfigError("plan takes no -m. Plan one run at a time.")
    config = None
    if arguments.help is None:
        config = load_config(arguments.overrides, config_dir=arguments.config_dir)
        if arguments.show_config:
            return _print_config(config)
    from xlmrxl_train.cli import plan  # late: it reads torch, and a fault of a word comes first

    return _usage("plan", plan.EXAMPLES) if config is None else plan.main(config, as_json="--json" in words)


def _runs(words: Sequence[str]) -> int:
    from xlmrxl_train.cli import runs  # late, as all that only one command needs

    return _with_usage("runs", words or ["runs"], runs.RUNS_EXAMPLES, runs.list_runs)


def _clean(words: Sequence[str]) -> int:
    from xlmrxl_train.cli import runs

    return _with_usage("clean", words or ["runs"], runs.CLEAN_EXAMPLES, runs.clean)


def _doctor(words: Sequence[str]) -> int:
    from xlmrxl_train.cli import doctor

    if any(word in ("-h", "--help") for word in words):
        return _usage("doctor", doctor.EXAMPLES)
    return doctor.main(words)


def _late(name: str) -> Callable[[Sequence[str]], int]:
    """Return the command of the module of this name, which is imported when the command is called."""

    def command(words: Sequence[str]) -> int:
        module = import_module(f"xlmrxl_train.cli.{name}")
        return _with_usage(name, words, module.EXAMPLES, module.main)

    return command


def _with_usage(name: str, words: Sequence[str], examples: str, main: Callable[[Sequence[str]], int]) -> int:
    if not words or any(word in ("-h", "--help") for word in words):
        _usage(name, examples)
        return 0 if words else 2
    return main(words)


# A command that takes other words than key=value reads them itself, in the module that does its work.
COMMANDS: dict[str, Command] = {
    "train": Command(
        arguments="recipe=<name> [key=value ...]", help="fine-tune, evaluate in every language, report", main=_train
    ),
    "evaluate": Command(
        arguments="<run folder> [key=value ...]", help="score a run again, write its report", main=_evaluate
    ),
    "prepare": Command(
        arguments="recipe=<name> [key=value ...]",
        help="fetch weights and data, tokenise, cache; for clusters whose nodes are offline",
        main=_prepare,
    ),
    "plan": Command(
        arguments="recipe=<name> [key=value ...] [--json]",
        help="what a run would need: memory by kind, time, and what would fit; without a GPU, weights or data",
        main=_plan,
    ),
    "tune": Command(
        arguments="recipe=<name> [key=value ...] [--trials N] [--workers N] [--search NAME|FILE]",
        help="search for the settings that score best on the validation split: many runs, one study",
        main=_late("tune"),
    ),
    "report": Command(
        arguments="<run folders or globs> [--compare] [--output FILE] [--figures FOLDER]",
        help="runs side by side: seeds folded, paired tests, published scores, XTREME's table",
        main=_late("report"),
    ),
    "run": Command(
        arguments="--task <task> --model <run folder, folder or Hub id> [--input FILE] [--json]",
        help="answer lines with a model: fill-mask, text-classification, question-answering, ...",
        main=_late("run"),
    ),
    "predict": Command(
        arguments="<run folder> --input FILE [--output FILE] [--on-error stop|skip]",
        help="labels, tags, answers or choices of a trained run for the rows of a file",
        main=_late("predict"),
    ),
    "export": Command(
        arguments="<run folder> --to transformers|onnx|adapter --output FOLDER",
        help="the model for other programs, with a model card written from the run",
        main=_late("export"),
    ),
    "average": Command(
        arguments="<model folders or globs> --output FOLDER [--evaluate]",
        help="the mean of several models' weights, scored beside them",
        main=_late("average"),
    ),
    "quantize": Command(
        arguments="<run folder> --to int8|int4 --output FOLDER",
        help="smaller weights, and what they cost in each language",
        main=_late("quantize"),
    ),
    "sync": Command(
        arguments="<run folder> --to wandb|tensorboard|mlflow|trackio [tracker.mode=online ...]",
        help="tell a tracker what it does not know of a run, from metrics.jsonl",
        main=_late("sync"),
    ),
    "runs": Command(
        arguments="[run folders or globs] [--json]",
        help="runs with state, steps, score, age, size on disk",
        main=_runs,
    ),
    "clean": Command(
        arguments="[run folders or globs] [--yes] [--all]",
        help="free the checkpoints of finished runs, asking first",
        main=_clean,
    ),
    "doctor": Command(
        arguments="[recipe=<name> key=value ...] [--quick] [--json]",
        help="is this machine ready: versions, devices, disks, ranks, data, tokenizer; red ones with the remedy",
        main=_doctor,
    ),
}


def _composed(command: str, arguments: Arguments) -> int:
    if arguments.multirun:
        if launched().size > 1:
            raise ConfigError("-m starts its jobs itself and cannot run under torchrun. Start one torchrun per job.")
        if arguments.show_config:
            raise ConfigError("--cfg shows one configuration, -m makes many. Leave one of them out.")
        return sweep(command, arguments.overrides, config_dir=arguments.config_dir)
    if arguments.show_config:
        config, faults = compose_config(arguments.overrides, library(arguments.config_dir))
        _print_config(config)
        if faults:
            raise ConfigError(*faults)
        return 0
    return _launch(command, lambda: load_config(arguments.overrides, config_dir=arguments.config_dir))


def _launch(command: str, compose: Callable[[], Config]) -> int:
    """Hand over to `run`, which is the first to import torch; alone, faults are found before that."""
    check_copies()
    composed = compose() if launched().size == 1 else None
    from xlmrxl_train import run

    try:
        return run.launch(command, compose if composed is None else lambda: composed)
    except UserError as error:
        if is_first():
            raise
        if FROM_FIRST_RANK not in getattr(error, "__notes__", ()):  # rank 0 knows nothing of it
            print(f"rank {launched().rank}: error: {error}", file=sys.stderr, flush=True)
        return 2


def _read(command: str, words: Sequence[str]) -> Arguments:
    """Sort the words of a command into flags and overrides; all unknown flags are reported together."""
    arguments, faults, rest = Arguments(), [], list(words)
    while rest:
        word = rest.pop(0)
        flag, equals, value = word.partition("=")
        if not word.startswith("-"):
            if word in COMMANDS and "=" not in word:
                faults.append(f"{word} is a command and comes first: xlmrxl {word} ...")
            arguments.overrides.append(word)
        elif flag in ("-h", "--help"):
            arguments.help = value if equals else (rest.pop(0) if rest and "=" not in rest[0] else "")
        elif flag in ("-m", "--multirun"):
            arguments.multirun = True
        elif flag in ("--cfg", "-c"):
            value = value if equals else (rest.pop(0) if rest and "=" not in rest[0] else "")
            arguments.show_config = True
            if value != "job":
                faults.append(f"--cfg must be job, got {value or 'nothing'}. Write --cfg job.")
        elif flag == "--config-dir":
            arguments.config_dir = value if equals else (rest.pop(0) if rest else "")
            if not arguments.config_dir:
                faults.append("--config-dir must be a folder, got nothing. Write --config-dir DIR.")
        elif flag in ("--local_rank", "--local-rank"):
            if not equals and rest and rest[0].isdigit():
                rest.pop(0)
            _say("note: --local_rank is not needed and ignored. Launch with torchrun -m xlmrxl_train.")
        else:
            hint = did_you_mean(flag, _FLAGS, f"{command} knows {', '.join(_FLAGS)}.")
            faults.append(f"{flag} is not a flag. {hint}")
    if faults:
        raise ConfigError(*faults)
    return arguments


_FLAGS = ("--help", "--version", "--multirun", "-m", "--cfg", "--config-dir")


def _help(prefix: str) -> int:
    if prefix:
        print(help_text.listing(prefix))
        return 0
    commands = {name: (command.arguments, command.help) for name, command in COMMANDS.items()}
    print(help_text.overview(commands, library()))
    return 0


def _usage(name: str, more: str = "All flags and keys: xlmrxl --help") -> int:
    command = COMMANDS[name]
    print(f"usage: xlmrxl {name} {command.arguments}\n\n{command.help}\n\n{more}")
    return 0


def _print_config(config: Config) -> int:
    if is_first():
        print(yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True, width=120), end="")
    return 0


def _say(*lines: str) -> None:
    """Print to standard error, once per job and not once per rank."""
    if lines and is_first():
        print(*lines, sep="\n", file=sys.stderr, flush=True)
