"""The words of a command that takes flags with a value: --input FILE or --input=FILE."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from xlmrxl_train.errors import ConfigError
from xlmrxl_train.spelling import did_you_mean


@dataclass(kw_only=True, slots=True)
class Words:
    """What was said."""

    values: dict[str, str] = field(default_factory=dict)  # flag without its dashes -> value; "" of a switch
    rest: list[str] = field(default_factory=list)


def read_words(command: str, words: Sequence[str], flags: Mapping[str, str], switches: Sequence[str] = ()) -> Words:
    """Sort the words of a command; all faults are reported together.

    Args:
        command: Its name, for messages.
        words: What follows it.
        flags: Names without dashes -> what the value is: "a file".
        switches: Names without dashes of flags without a value.

    Raises:
        ConfigError: A flag is unknown, or lacks its value.
    """
    known = [f"--{name}" for name in (*flags, *switches, "help")]
    found, rest, faults = Words(), list(words), []
    while rest:
        word = rest.pop(0)
        flag, equals, value = word.partition("=")
        name = flag.removeprefix("--")
        if not word.startswith("-") or word == "-":
            found.rest.append(word)
        elif word.startswith("--") and name in switches and not equals:
            found.values[name] = ""
        elif word.startswith("--") and name in flags:
            value = value if equals else rest.pop(0) if rest else ""
            found.values[name] = value
            if not value:
                faults.append(f"{flag} must be {flags[name]}, got nothing. Write {flag} and then {flags[name]}.")
        else:
            hint = did_you_mean(flag, known, f"{command} knows {', '.join(known)}.")
            faults.append(f"{word} is not a flag. {hint}")
    if faults:
        raise ConfigError(*faults)
    return found
