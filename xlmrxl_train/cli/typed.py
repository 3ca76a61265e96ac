"""Plain values become the typed dataclasses of `config`; every fault is found, not only the first.

Hydra's own structured configs stop at the first fault and speak of converters; a person wants all of them, in words.
"""

import math
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from xlmrxl_train.config import VARIANTS, Config
from xlmrxl_train.spelling import did_you_mean

SET_BY_CHOICE = "set by the choice of"  # such a key's help text begins with it
MIXTURE = "mixture."  # below it are names that a person chose, and below these the keys of a data set
_WORDS = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}
_FAILED = object()
_SHOWN = 400  # characters of a value in a message


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One fault in one line, and the key it is about."""

    key: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """A key of the schema: its dotted name, its type, its help text, its default."""

    name: str
    hint: Any
    help: str
    default: Any


def inner_dataclass(hint: Any) -> type | None:
    """Return the dataclass in `X`, `X | None`, `list[X]` or `dict[str, X]`, if X is one."""
    return next((kind for kind in (hint, *get_args(hint)) if isinstance(kind, type) and is_dataclass(kind)), None)


def keys_of(kind: type, classes: Mapping[str, type], prefix: str = "") -> Iterator[Key]:
    """Yield every key below `kind`; `classes` says which variant stands at "task" and "strategy"."""
    hints = get_type_hints(kind)
    for item in fields(kind):
        name, hint = f"{prefix}{item.name}", hints[item.name]
        inner = inner_dataclass(hint)
        if inner is not None and get_origin(hint) not in (list, dict):
            yield from keys_of(classes.get(name, inner), classes, f"{name}.")
            continue
        default = item.default_factory() if callable(item.default_factory) else item.default
        yield Key(name=name, hint=hint, help=item.metadata.get("help", ""), default=default)


def type_of(key: str, classes: Mapping[str, type]) -> Any | None:
    """Return the type at a dotted key ("train.languages", "dataset.files.train.0.path"), or None if there is none."""
    hint: Any = Config
    path = ""
    for part in key.split("."):
        path = f"{path}.{part}" if path else part
        inner = _without_none(hint)
        if isinstance(inner, type) and is_dataclass(inner):
            hint = classes.get(path) or get_type_hints(inner).get(part)
        elif get_origin(inner) is list and part.isdigit():
            hint = get_args(inner)[0]
        elif get_origin(inner) is dict:
            hint = get_args(inner)[1]
        else:
            hint = None
        if hint is None:
            return None
    return hint


def variants_of(values: Mapping[str, Any]) -> tuple[dict[str, type], list[Fault]]:
    """Return the class that each section with variants has, by its `task.kind` or `strategy.name`."""
    classes: dict[str, type] = {}
    faults = []
    for section, variants in VARIANTS.items():
        discriminator = "kind" if section == "task" else "name"
        given = values.get(section) or {}
        chosen = given.get(discriminator) if isinstance(given, Mapping) else None  # else `convert` refuses it
        if isinstance(chosen, str) and chosen in variants:
            classes[section] = variants[chosen]
        elif chosen is not None:
            key = f"{section}.{discriminator}"
            faults.append(Fault(key=key, text=f"{key} must be {' | '.join(variants)}, got {chosen!r}."))
    return classes, faults


def unknown_key(key: str, classes: Mapping[str, type]) -> Fault:
    """Return the fault of a key that the schema does not have, with the nearest that it has."""
    for section, variants in VARIANTS.items():
        owners = [name for name, kind in variants.items() if type_of(key, {section: kind}) is not None]
        if owners and key.startswith(f"{section}."):
            where = ", ".join(f"{section}={owner}" for owner in owners)
            return Fault(key=key, text=f"{key} is not a key of the chosen {section}; it belongs to {where}.")
    names = [item.name for item in keys_of(Config, classes)]
    if key.startswith(MIXTURE):
        section = ".".join(key.split(".")[:2])
        names = [f"{section}.{name.removeprefix('dataset.')}" for name in names if name.startswith("dataset.")]
    return Fault(key=key, text=f"{key} is not a key. {did_you_mean(key, names, 'List them with --help all.')}")


def convert(hint: Any, value: Any, key: str, classes: Mapping[str, type], faults: list[Fault]) -> Any:
    """Return `value` as `hint` wants it; append what is wrong with it to `faults`."""
    if value == "???":
        faults.append(Fault(key=key, text=f"{key} must be given, got ???. Add {key}=<value>."))
        return _FAILED
    optional, inner, words = type(None) in get_args(hint), _without_none(hint), _literals(hint)
    if (value is None and optional) or value in words:
        return value
    origin = get_origin(inner)
    if inner is Any:  # another program's setting
        return value
    if isinstance(inner, type) and is_dataclass(inner):
        if isinstance(value, Mapping):
            return build(classes.get(key, inner), value, classes, faults, prefix=f"{key}.")
        return _refuse(key, "a mapping of keys to values", value, optional, faults)
    if origin is list:
        if not isinstance(value, list):
            return _refuse(key, f"a list, e.g. {key}=[a,b]", value, optional, faults)
        element = get_args(inner)[0]
        items = [convert(element, item, f"{key}[{index}]", classes, faults) for index, item in enumerate(value)]
        return _FAILED if any(item is _FAILED for item in items) else items
    if origin is dict:
        if not isinstance(value, Mapping):
            return _refuse(key, f"a mapping, e.g. '{key}={{name: value}}'", value, optional, faults)
        element = get_args(inner)[1]
        pairs = {
            convert(str, name, f"{key} (a name in it)", classes, faults): convert(
                element, item, f"{key}.{name}", classes, faults
            )
            for name, item in value.items()
        }
        return _FAILED if any(_FAILED in pair for pair in pairs.items()) else pairs
    converted = _scalar(inner, value)
    expected = " or ".join([_WORDS[inner], *words])
    return _refuse(key, expected, value, optional, faults) if converted is _FAILED else converted


def build(
    kind: type, values: Mapping[Any, Any], classes: Mapping[str, type], faults: list[Fault], *, prefix: str = ""
) -> Any:
    """Return an instance of `kind` with `values`; a key with a fault keeps its default and the fault is appended."""
    hints = get_type_hints(kind)
    names = {item.name for item in fields(kind)}
    arguments = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if name not in names:
            nested = "[" in prefix or prefix.startswith(MIXTURE)
            faults.append(_unknown_inside(key, names) if nested else unknown_key(key, classes))
            continue
        converted = convert(classes.get(key, hints[name]), value, key, classes, faults)
        if converted is not _FAILED:
            arguments[name] = converted
    return kind(**arguments)


def show(value: Any) -> str:
    """Return a value as a person would write it in YAML."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | Mapping) and len(str(value)) > _SHOWN:
        return f"{str(value)[:_SHOWN]}..."
    if isinstance(value, list):
        return f"[{', '.join(show(item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{show(name)}: {show(item)}' for name, item in value.items())}}}"
    return f"{value:g}" if isinstance(value, float) else repr(value) if value == "" else str(value)


def _unknown_inside(key: str, names: set[str]) -> Fault:
    parent, _, name = key.rpartition(".")
    hint = did_you_mean(name, sorted(names), f"Known are {', '.join(sorted(names))}.")
    return Fault(key=key, text=f"{parent} has no {name}. {hint}")


def _refuse(key: str, expected: str, value: Any, optional: bool, faults: list[Fault]) -> Any:
    remedy = ""
    if isinstance(value, bool) and not expected.startswith("true"):
        words = "no, off, n and false" if not value else "yes, on, y and true"
        remedy = f" YAML reads an unquoted {words} as {show(value)}: quote '{'yes' if value else 'no'}'."
    expected += " or null" if optional else ""
    faults.append(Fault(key=key, text=f"{key} must be {expected}, got {show(value)}.{remedy}"))
    return _FAILED


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        return next(kind for kind in get_args(hint) if kind is not type(None))
    return hint


def _literals(hint: Any) -> list[str]:
    """Return the words that may stand in place of a value: "auto" in `int | Literal["auto"]`."""
    return [word for kind in get_args(hint) if get_origin(kind) is Literal for word in get_args(kind)]


def _scalar(kind: type, value: Any) -> Any:
    if kind is bool:
        words = {"true": True, "false": False}
        return value if isinstance(value, bool) else words.get(str(value).lower(), _FAILED)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return _FAILED
    if kind is str:
        return str(value)
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return _FAILED
    if not math.isfinite(number):
        return _FAILED
    if kind is float or isinstance(value, int):  # an int goes through as it is: float loses digits beyond 2**53
        return number if kind is float else value
    return int(number) if number.is_integer() else _FAILED
