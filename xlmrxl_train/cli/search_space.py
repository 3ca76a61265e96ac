"""A YAML file of a search becomes a typed `Search`; every fault is found and names its key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

from omegaconf import OmegaConf

from xlmrxl_train.cli.compose import compose_config
from xlmrxl_train.cli.library import Library
from xlmrxl_train.cli.typed import Fault, build, convert, show, type_of, unknown_key, variants_of
from xlmrxl_train.cli.yaml_files import read_yaml
from xlmrxl_train.config import Config, leaves, to_dict
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.search.space import Choices, Range, Search
from xlmrxl_train.spelling import did_you_mean

_NOT_SEARCHED = ("run.", "data.", "dataset", "mixture", "evaluate.", "tracker", "plan.", "recipe")
_WORDS = {"sampler": ("tpe", "random"), "pruner": ("median", "none")}


@dataclass(kw_only=True, slots=True)
class _Parameter:
    """What may be drawn for one key, as the file has it."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = None
    relative: bool = False
    choices: list[Any] = field(default_factory=list)


def read_search(word: str, config: Config, overrides: Sequence[str], files: Library) -> Search:
    """Return the search of a name in conf/search/ or of a path; keys that `overrides` set are not searched.

    Args:
        word: fine_tuning, or my_search.yaml.
        config: What the overrides compose.
        overrides: The words of the command line.
        files: Where names are found.

    Raises:
        ConfigError: With every fault; each names the file and the key.
    """
    if word.endswith(".yaml"):
        path, values = Path(word), OmegaConf.to_container(read_yaml(Path(word)))
    elif word in files.searches:
        path, values = files.searches[word].path, OmegaConf.to_container(files.searches[word].values)
    else:
        hint = did_you_mean(word, files.searches, f"There are {', '.join(sorted(files.searches))}.")
        raise ConfigError(f"--search must be a name in conf/search/ or the path of a .yaml, got {word}. {hint}")
    assert isinstance(values, dict)
    faults: list[str] = []
    rest = _settings(values, faults)
    given = {line.partition("=")[0].lstrip("+") for line in overrides}
    space = _space(values.get("space"), config, given, faults)
    if not faults:
        faults += _faults_of_values(space, overrides, files)
    if faults:
        raise ConfigError(*(f"{path}: {fault}" for fault in dict.fromkeys(faults)))
    return Search(space=space, **rest)


def _settings(values: Mapping[Any, Any], faults: list[str]) -> dict[str, Any]:
    """Return every key beside the space."""
    names = [item.name for item in fields(Search)]
    found: list[Fault] = []
    settings = {}
    for name, value in values.items():
        if name not in names:
            faults.append(f"{name} is not a key of a search. {did_you_mean(str(name), names, f'There are {names}.')}")
        elif name in _WORDS and value not in _WORDS[name]:
            faults.append(f"{name} must be {' | '.join(_WORDS[name])}, got {show(value)}.")
        elif name in ("startup", "grace"):
            settings[name] = convert(int, value, name, {}, found)
            if not found and settings[name] < 0:
                faults.append(f"{name} must be 0 or more, got {value}.")
        elif name != "space":
            settings[name] = value
    faults += [fault.text for fault in found]
    return settings


def _space(values: Any, config: Config, given: set[str], faults: list[str]) -> dict[str, Range | Choices]:
    if not isinstance(values, dict) or not values:
        faults.append(
            f"space must map keys to what may be drawn, got {show(values)}. Write space: {{optimizer.lr: ...}}."
        )
        return {}
    classes, _ = variants_of(to_dict(config))
    base, space = dict(leaves(config)), {}
    for name, entry in values.items():
        where, found = f"space[{name}]", list[Fault]()
        if str(name).startswith(_NOT_SEARCHED):
            faults.append(f"{where} cannot be searched: trials must be scored on the same data. Remove it.")
        elif not isinstance(entry, dict):
            faults.append(f"{where} must be {{low: ..., high: ...}} or {{choices: [...]}}, got {show(entry)}.")
        elif str(name) not in given:
            parameter = build(_Parameter, entry, {}, found, prefix=f"{where}.")
            faults += [fault.text for fault in found]
            hint = type_of(name, classes)
            if hint is None and "." in str(name):
                faults.append(f"space: {unknown_key(name, classes).text}")
            elif not found and (drawn := _drawn(where, parameter, hint, base.get(name), faults)):
                space[str(name)] = drawn
    if not space and not faults:
        faults.append("space has no key that the command line does not set. Leave one of them out there.")
    return space


def _drawn(where: str, entry: _Parameter, hint: Any, base: Any, faults: list[str]) -> Range | Choices | None:
    """Return what one entry means; None where it is at fault."""
    if (entry.low is None or entry.high is None) == (not entry.choices):
        faults.append(f"{where} must have low and high, or choices, and not both.")
        return None
    if entry.choices:
        return Choices(examples=tuple(map(show, entry.choices)))
    kinds = {kind for kind in (hint, *get_args(hint)) if kind in (int, float)}
    whole = int in kinds
    assert entry.low is not None and entry.high is not None
    scale = 1.0
    if entry.relative:
        if whole or not isinstance(base, int | float) or base <= 0:
            faults.append(
                f"{where}.relative needs a key that is a number above 0 here, got {show(base)}. Leave it out."
            )
            return None
        scale = float(base)
    low, high, step = entry.low * scale, entry.high * scale, None if entry.step is None else entry.step * scale
    problems = [
        ("must be choices, for this key is no number", not kinds),
        (f"must have a low below its high, got {low:g} and {high:g}", low >= high),
        (f"must have a low above 0 with log, got {low:g}", entry.log and low <= 0),
        (f"must have a step above 0, got {step}", step is not None and step <= 0),
        ("must have log or a step, not both", entry.log and step is not None),
        ("must have whole numbers", whole and not all(float(n).is_integer() for n in (low, high, step or 1))),
    ]
    wrong = [f"{where} {text}." for text, holds in problems if holds]
    faults += wrong
    return None if wrong else Range(low=low, high=high, log=entry.log, step=step, whole=whole)


def _faults_of_values(space: Mapping[str, Range | Choices], overrides: Sequence[str], files: Library) -> list[str]:
    """Return what the rules of a configuration say of the ends of ranges and of every choice."""
    faults: list[str] = []
    for index in range(max(len(drawn.examples) for drawn in space.values())):
        lines = [f"{name}={drawn.examples[min(index, len(drawn.examples) - 1)]}" for name, drawn in space.items()]
        _, found = compose_config([*overrides, *lines], files)
        faults += [f"space: {fault}" for fault in found]
    return faults
