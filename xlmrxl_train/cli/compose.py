"""Let Hydra compose the chosen files, set the overrides, and return one typed `Config`.

Hydra composes the files (choices, recipes that build on recipes, `override /model: xl`). The overrides of single keys
are set here, one at a time, so that all faults of a command line are reported together; Hydra stops at the first.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_origin

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from xlmrxl_train.checks import faults_of, faults_of_values
from xlmrxl_train.checks.tasks import WITHOUT_TRAINING
from xlmrxl_train.cli.library import Library, library
from xlmrxl_train.cli.typed import (
    MIXTURE,
    SET_BY_CHOICE,
    Fault,
    build,
    convert,
    inner_dataclass,
    keys_of,
    show,
    type_of,
    unknown_key,
    variants_of,
)
from xlmrxl_train.cli.yaml_files import read_yaml
from xlmrxl_train.config import VARIANTS, Config, to_dict
from xlmrxl_train.errors import ConfigError, RunError
from xlmrxl_train.spelling import did_you_mean


def load_config(overrides: Sequence[str] = (), *, config_dir: str | Path | None = None) -> Config:
    """Compose a configuration as the command line does.

    Args:
        overrides: `recipe=xnli`, `train.epochs=2`, ... in Hydra's grammar.
        config_dir: A folder with YAML files of one's own: `dataset/<name>.yaml`, `recipe/<name>.yaml`, ...

    Raises:
        ConfigError: With every fault found, one line each.
    """
    config, faults = compose_config(overrides, library(config_dir))
    if faults:
        raise ConfigError(*faults)
    return config


def compose_config(overrides: Sequence[str], files: Library) -> tuple[Config, tuple[str, ...]]:
    """Return what composes, and all faults."""
    faults = list(files.faults)
    choices, values = _split(overrides, files, faults)
    if "recipe" not in choices and not any(fault.key == "recipe" for fault in faults):
        names = ", ".join(sorted(files.groups["recipe"]))
        faults.append(Fault(key="recipe", text=f"recipe must be given: recipe=<name>. There are {names}."))
    mixture = {name: choices.pop(name) for name in list(choices) if name.startswith(MIXTURE)}
    raw, chosen = _compose(files, choices, faults)
    chosen |= _choose_anew(raw, mixture, files, faults)
    whole = _composed_whole(files, faults)
    config, sound = _typed(raw, values, files, chosen, faults)
    return config, _all_faults(config, faults, whole=whole and sound)


def load_run_config(
    folder: str | Path, overrides: Sequence[str] = (), *, config_dir: str | Path | None = None
) -> Config:
    """Read back the configuration of a run and set `overrides` in it; groups can be chosen anew, the recipe not.

    Raises:
        RunError: `folder` is not a run folder.
        ConfigError: With every fault of the overrides.
    """
    path = Path(folder) / "config.yaml"
    try:
        problem = None if path.is_file() else "has no config.yaml" if Path(folder).is_dir() else "does not exist"
    except OSError as error:  # a longer name than the file system allows
        folder, problem = str(folder)[:120], error.strerror or str(error)
    if problem:
        raise RunError(f"{folder} is not a run folder: it {problem}. Give the folder that a training run wrote.")
    try:
        stored = read_yaml(path)
    except ConfigError as error:
        raise RunError(f"{error} A training run wrote it: restore it from a copy.") from error
    files = library(config_dir)
    faults = list(files.faults)
    choices, values = _split(overrides, files, faults)
    if "recipe" in choices:
        faults.append(Fault(key="recipe", text=f"recipe is fixed by the run {folder}. Leave it out."))
    chosen = _choose_anew(stored, {key: name for key, name in choices.items() if key != "recipe"}, files, faults)
    whole = _composed_whole(files, faults)
    recipe = str(OmegaConf.select(stored, "run.recipe") or "")
    config, sound = _typed(stored, values, files, chosen, faults, recipe=recipe)
    config.run.dir = str(folder)
    if "dataset" in choices:  # what trained is over, and the run's report says what it was
        config.train.languages = [] if config.task.kind in WITHOUT_TRAINING else ["all"]
        config.train.shots, config.train.shot_languages = 0, []
        config.mixture, config.evaluate.select_languages = {}, []
    if all_faults := _all_faults(config, faults, whole=whole and sound):
        raise ConfigError(*all_faults)
    return config


def _composed_whole(files: Library, faults: list[Fault]) -> bool:
    """Whether every choice was found; without one, only what each key shows on its own can be judged."""
    return not any(fault.key in files.groups or not fault.key for fault in faults)


def _all_faults(config: Config, faults: list[Fault], *, whole: bool) -> tuple[str, ...]:
    texts = [fault.text for fault in faults]
    known = {fault.key for fault in faults}
    rules = faults_of(config) if whole else faults_of_values(config)
    texts += [text for text in rules if text.split(" ", 1)[0] not in known]
    return tuple(dict.fromkeys(texts))


def _split(
    overrides: Sequence[str], files: Library, faults: list[Fault]
) -> tuple[dict[str, str], list[tuple[str, Override | None]]]:
    """Return the choices of groups, and the other overrides as (line, parsed; None where text needs quotes)."""
    choices: dict[str, str] = {}
    values: list[tuple[str, Override | None]] = []
    parser = OverridesParser.create()
    for line in overrides:
        name, equals, text = line.partition("=")
        if name == "tracker" and text.startswith("["):  # several choices of this group are a list of their names
            name, line = "tracker.names", f"tracker.names={text}"
        if name.startswith("hydra."):
            faults.append(Fault(key=name, text=f"{name} is not a key: Hydra's own settings are fixed here."))
        elif not equals and not line.startswith("~"):
            faults.append(Fault(key=line, text=f"{line!r} is not an override. Write key=value."))
        elif name in files.groups:
            _choose(name, name, text, files, choices, faults)
        elif (key := _in_mixture(name)) and equals and not text.startswith("{"):
            _choose(key, "dataset", text, files, choices, faults)
        else:
            try:
                parsed = parser.parse_override(line)
            except (HydraException, ValueError, RecursionError) as error:
                if type_of(name, _any_variant(name)) in (str, str | None):
                    values.append((line, None))  # a path may hold characters that Hydra's grammar wants quoted
                else:
                    reason = str(error).split("\n", 1)[0]
                    faults.append(
                        Fault(key=name, text=f"{line[:120]} cannot be read: {reason[:200]}. Quote the value.")
                    )
                continue
            if parsed.is_sweep_override():
                faults.append(_not_one_value(name, text))
            else:
                values.append((line, parsed))
    return choices, values


def _not_one_value(key: str, text: str) -> Fault:
    hint = type_of(key, _any_variant(key))
    remedy = "for a sweep add -m"
    if get_origin(hint) is list:
        remedy = f"for a list write {key}=[{text}], {remedy}"
    elif hint in (str, str | None):
        remedy = f"for text with a comma write \"{key}='{text}'\", {remedy}"
    return Fault(key=key, text=f"{key} must be one value, got {text}: {remedy}.")


def _choose(key: str, group: str, name: str, files: Library, choices: dict[str, str], faults: list[Fault]) -> None:
    options = files.groups[group]
    if name in options:
        choices[key] = name
        return
    hint = did_you_mean(name, options, "").replace("mean ", f"mean {key}=")
    listed = f"There are {', '.join(sorted(options))}."
    faults.append(Fault(key=group, text=" ".join(f"{key}={name} is not a choice. {hint} {listed}".split())))


def _in_mixture(name: str) -> str | None:
    """Return "mixture.squad" of that key, or of Hydra's own spelling "+dataset@mixture.squad"."""
    key = name.lstrip("+").removeprefix("dataset@")
    return key if key.startswith(MIXTURE) and key.count(".") == 1 else None


def _choose_anew(
    raw: DictConfig, choices: Mapping[str, str], files: Library, faults: list[Fault]
) -> dict[str, str | None]:
    """Put the files chosen for sections in their place, and return the choices made: "model", "mixture.squad"."""
    for key, name in choices.items():
        group = "dataset" if key.startswith(MIXTURE) else key
        try:
            with files.opened():
                OmegaConf.update(raw, key, compose(config_name=f"{group}/{name}")[group], merge=False, force_add=True)
        except _COMPOSITION_FAULTS as error:
            faults.append(_not_composed(f"{key}={name}", error))
    return dict(choices)


def _any_variant(key: str) -> dict[str, type]:
    """Return the variants under which `key` exists, where a choice is not known yet."""
    section = key.split(".", 1)[0]
    kinds = VARIANTS.get(section, {}).values()
    return next(({section: kind} for kind in kinds if type_of(key, {section: kind}) is not None), {})


def _compose(
    files: Library, choices: Mapping[str, str], faults: list[Fault]
) -> tuple[DictConfig, dict[str, str | None]]:
    """Return Hydra's composition and the choice of every group; empty if it cannot be composed."""
    lines = [f"{group}={name}" for group, name in choices.items()]
    if "recipe" not in choices:
        lines.append("~recipe")
    with files.opened():
        try:
            composed = compose(config_name="config", overrides=lines, return_hydra_config=True)
        except _COMPOSITION_FAULTS as error:
            faults.append(_not_composed(" ".join(lines), error))
            return OmegaConf.create(), {}
    chosen = {
        name.removeprefix("dataset@"): choice
        for name, choice in composed.hydra.runtime.choices.items()
        if name in files.groups or name.startswith(f"dataset@{MIXTURE}")
    }
    return OmegaConf.masked_copy(composed, [str(name) for name in composed if name != "hydra"]), chosen


_COMPOSITION_FAULTS = (HydraException, OmegaConfBaseException, ValueError, RecursionError)


def _not_composed(lines: str, error: Exception) -> Fault:
    """Return the fault of choices whose files do not fit together."""
    reason = " ".join(str(error.__cause__ or error).split("Available options")[0].split())
    if isinstance(error, RecursionError):
        reason = "its defaults lead back to itself; remove one of them"
    return Fault(key="", text=f"{lines} cannot be composed: {reason}")


def _typed(
    raw: DictConfig,
    overrides: Sequence[tuple[str, Override | None]],
    files: Library,
    chosen: Mapping[str, str | None],
    faults: list[Fault],
    *,
    recipe: str | None = None,
) -> tuple[Config, bool]:
    """Return the typed configuration of `raw` with `overrides` set, and whether every file's key could be read."""
    OmegaConf.set_struct(raw, False)
    classes, variant_faults = variants_of(raw)
    faults += variant_faults
    sections = {name: kind() for name, kind in classes.items()}
    defaults = OmegaConf.create(to_dict(Config(**sections)))
    try:
        merged = OmegaConf.merge(defaults, raw)
    except (OmegaConfBaseException, RecursionError) as error:
        faults.append(
            Fault(key="", text=f"the chosen files cannot be merged: {str(error).splitlines()[0]}. Mend them.")
        )
        merged = defaults
    assert isinstance(merged, DictConfig)
    merged.run.recipe = (chosen.get("recipe") or "") if recipe is None else recipe
    for line, parsed in overrides:
        _set(merged, line, parsed, classes, faults)
    from_files: list[Fault] = []
    config: Config = build(Config, _resolved(merged, "", from_files), classes, from_files)
    faults += [Fault(key=fault.key, text=fault.text + _origin(fault.key, files, chosen)) for fault in from_files]
    return config, not from_files


def _set(
    config: DictConfig, line: str, parsed: Override | None, classes: Mapping[str, type], faults: list[Fault]
) -> None:
    """Set one override, or append why it cannot be."""
    name, _, text = line.partition("=")
    key = name.lstrip("+~")
    hint = type_of(key, classes)
    if hint is None:
        faults.append(unknown_key(key, classes))
        return
    help_text = next((item.help for item in keys_of(Config, classes) if item.name == key), "")
    if help_text.startswith(SET_BY_CHOICE):
        group = help_text.removeprefix(SET_BY_CHOICE).split(";")[0].strip()
        faults.append(Fault(key=key, text=f"{key} is {SET_BY_CHOICE} {group}. Write {group}=<name>."))
        return
    if parsed is not None and parsed.type == OverrideType.DEL:
        _delete(config, key, classes, faults)
        return
    value: Any = text if parsed is None else parsed.value()
    if hint in (str, str | None) and isinstance(value, int | float) and not isinstance(value, bool):
        value = text  # a commit like 12e4567 is not a number
    if "${" not in show(value):
        found: list[Fault] = []
        converted = convert(hint, value, key, classes, found)
        if found:
            faults += found
            return
        value = value if inner_dataclass(hint) else converted
    try:
        OmegaConf.update(config, key, value, merge=True)
    except (OmegaConfBaseException, IndexError) as error:
        faults.append(Fault(key=key, text=f"{line} cannot be set: {str(error).splitlines()[0]}."))


def _delete(config: DictConfig, key: str, classes: Mapping[str, type], faults: list[Fault]) -> None:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else None
    free = "dict[" in str(type_of(parent, classes)) if parent else False
    if free and isinstance(node, DictConfig) and name in node:
        del node[name]
    else:
        faults.append(Fault(key=key, text=f"~{key}: a key cannot be removed. Set it to another value, or to null."))


def _resolved(node: Any, path: str, faults: list[Fault]) -> Any:
    """Return `node` as plain values, its interpolations resolved; one that leads nowhere is a fault and left out."""
    names = list(node) if OmegaConf.is_dict(node) else range(len(node)) if OmegaConf.is_list(node) else None
    if names is None:
        return node
    values = {}
    for name in names:
        inner = f"{path}[{name}]" if OmegaConf.is_list(node) else f"{path}.{name}" if path else str(name)
        try:
            values[name] = "???" if OmegaConf.is_missing(node, name) else _resolved(node[name], inner, faults)
        except (OmegaConfBaseException, RecursionError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            faults.append(Fault(key=inner, text=f"{inner} cannot be resolved: {reason}."))
    return values if OmegaConf.is_dict(node) else list(values.values())


def _origin(key: str, files: Library, chosen: Mapping[str, str | None]) -> str:
    """Return which YAML file a fault comes from, as the end of its message."""
    section, _, rest = key.partition(".")
    if key.startswith(MIXTURE):
        name, _, rest = rest.partition(".")
        section = MIXTURE + name
    for part, where in ((section, rest), ("recipe", key)):
        group = "dataset" if part.startswith(MIXTURE) else part
        choice = files.groups.get(group, {}).get(chosen.get(part) or "")
        if choice is not None and OmegaConf.select(choice.values, where.split("[")[0]) is not None:
            return f" (in {choice.path})"
    return ""
