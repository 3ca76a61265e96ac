"""What `--help` prints: made from the YAML files and the keys' own help text, so that it cannot be out of date."""

import shutil
import textwrap
from collections.abc import Iterable, Mapping

from xlmrxl_train.checks import CHOICES
from xlmrxl_train.cli.library import Library
from xlmrxl_train.cli.typed import Key, keys_of, show
from xlmrxl_train.config import VARIANTS, Config
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.spelling import did_you_mean

MOST_USED = (
    "model.path",
    "tokenizer.path",
    "data.source",
    "data.root",
    "data.limit",
    "task.max_length",
    "train.languages",
    "train.epochs",
    "train.max_steps",
    "train.batch_size",
    "train.tokens_per_micro_batch",
    "train.precision",
    "train.recompute",
    "train.checkpoint_every",
    "train.max_hours",
    "optimizer.lr",
    "evaluate.languages",
    "evaluate.every",
    "seed",
    "run.name",
    "run.dir",
    "run.resume",
)
FLAGS = {
    "-m, --multirun": "one job per combination of key=a,b  key=range(1,4)  'recipe=glob(*)', each in its own process",
    "--cfg job": "print the whole configuration and stop",
    "--config-dir DIR": "your own choices: DIR/dataset/<name>.yaml, DIR/recipe/<name>.yaml, ...",
    "--help [PREFIX]": "this text; --help train lists the keys of train, --help all every key",
    "--version": "print the version",
}


def overview(commands: Mapping[str, tuple[str, str]], files: Library) -> str:
    """Return the first page: commands, choices, the most used keys. `commands` maps a name to (arguments, help)."""
    lines = [
        "Fine-tune XLM-RoBERTa-XL and evaluate it in every language.",
        "",
        "usage: xlmrxl [command] [key=value ...]        (or: python -m xlmrxl_train ...)",
        "",
        "commands (train, where none is given)",
        *_table((f"{name} {arguments}", text) for name, (arguments, text) in commands.items()),
        "",
        "flags",
        *_table(FLAGS.items()),
    ]
    for group in ("recipe", *(name for name in files.groups if name != "recipe")):
        options = files.groups[group].items()
        lines += ["", f"{group}=", *_table((name, choice.title) for name, choice in sorted(options))]
    keys = {item.name: item for item in keys_of(Config, {})}
    lines += ["", "the most used keys, with defaults", *_keys(keys[name] for name in MOST_USED)]
    return "\n".join(lines)


def listing(prefix: str) -> str:
    """Return every key below `prefix` ("train", "dataset.hub"; "all": every key).

    Raises:
        ConfigError: There is no such key.
    """
    plain = list(keys_of(Config, {}))
    shared = {item.name for item in plain}
    wanted = [item for item in plain if _below(item.name, prefix)]
    lines = _keys(wanted)
    for section, variants in VARIANTS.items():
        for name, kind in variants.items():
            own = [item for item in keys_of(Config, {section: kind}) if item.name not in shared]
            if own := [item for item in own if _below(item.name, prefix)]:
                lines += ["", f"with {section}={name}", *_keys(own)]
    if not lines:
        sections = sorted({item.name.split(".")[0] for item in plain})
        hint = did_you_mean(prefix, [*sections, *shared], f"There are {', '.join(sections)}.")
        raise ConfigError(f"--help {prefix}: there is no such key. {hint}")
    return "\n".join(lines)


def _below(name: str, prefix: str) -> bool:
    return prefix == "all" or name == prefix or name.startswith(f"{prefix}.")


def _keys(keys: Iterable[Key]) -> list[str]:
    rows = []
    for item in keys:
        text = item.help
        if item.name in CHOICES and "|" not in text:
            text = f"{' | '.join(CHOICES[item.name])}; {text}"
        rows.append((f"{item.name}={show(item.default)}", text))
    return _table(rows)


def _table(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Return two columns; a long first cell stands on a line of its own."""
    width, left = min(max(shutil.get_terminal_size((120, 24)).columns, 80), 140), 36
    lines = []
    for first, second in rows:
        wrapped = textwrap.wrap(second, width - left - 2) or [""]
        head = f"  {first}"
        if len(head) < left:
            lines.append(f"{head:<{left}}{wrapped.pop(0)}".rstrip())
        else:
            lines.append(head)
        lines += [f"{'':<{left}}{line}" for line in wrapped]
    return lines
