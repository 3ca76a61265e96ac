"""The words of commands that take folders and flags instead of key=value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from xlmrxl_train.errors import ConfigError
from xlmrxl_train.spelling import did_you_mean


@dataclass(frozen=True, kw_only=True, slots=True)
class Flag:
    """A flag of a command."""

    example: str = ""
    """A value that it may have; "": it takes none."""
    choices: tuple[str, ...] = ()
    """The only values that it may have, if they are few."""
    required: bool = False


@dataclass(kw_only=True, slots=True)
class Words:
    """What a command was given."""

    places: list[str] = field(default_factory=list)
    """Words that are no flags."""
    values: dict[str, str] = field(default_factory=dict)
    """Flag -> its value; "" for one that takes none."""


def read_words(command: str, words: Sequence[str], flags: Mapping[str, Flag]) -> Words:
    """Sort words into places and flags.

    Raises:
        ConfigError: With every fault: an unknown flag, one without or with a wrong value, one that is missing.
    """
    read, rest, faults = Words(), list(words), []
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if not word.startswith("-"):
            read.places.append(word)
        elif name not in flags:
            known = f"{command} knows {', '.join([*flags, '--help'])}."
            faults.append(f"{name} is not a flag. {did_you_mean(name, [*flags, '--help'], known)}")
        elif not flags[name].example:
            read.values[name] = ""
            if equals:
                faults.append(f"{name} takes no value, got {value!r}. Write {name} alone.")
        else:
            value = value if equals else (rest.pop(0) if rest and not rest[0].startswith("--") else "")
            read.values[name] = value
            if fault := _fault(name, flags[name], value):
                faults.append(fault)
    for name, flag in flags.items():
        if flag.required and name not in read.values:
            faults.append(f"{command} needs {name}, got none. Write {name} {flag.example}.")
    if faults:
        raise ConfigError(*faults)
    return read


def _fault(name: str, flag: Flag, value: str) -> str | None:
    if not value:
        return f"{name} must have a value, got nothing. Write {name} {flag.example}."
    if flag.choices and value not in flag.choices:
        return f"{name} must be {' | '.join(flag.choices)}, got {value!r}."
    return None


def one_place(command: str, words: Words) -> str:
    """Return the only folder that a command was given.

    Raises:
        ConfigError: There is none, or several.
    """
    if len(words.places) != 1:
        raise ConfigError(
            f"{command} needs one run folder, model folder or Hub id, got {len(words.places) or 'none'}. "
            f"Write xlmrxl {command} runs/xnli/seed-1."
        )
    return words.places[0]
