"""The YAML files that can be chosen: those of `conf/` and `recipes/`, and those of the user's folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra import initialize_config_module
from hydra.core.config_store import ConfigNode, ConfigStore
from omegaconf import DictConfig

from xlmrxl_train.cli.typed import Fault
from xlmrxl_train.cli.yaml_files import read_yaml
from xlmrxl_train.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parents[1]


def shipped(name: str) -> Path:
    """Return the folder `conf` or `recipes`: inside the package in a wheel, beside it in a checkout."""
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


@dataclass(kw_only=True)
class Choice:
    """One YAML file: an option of a group."""

    group: str
    name: str
    path: Path

    @cached_property
    def values(self) -> DictConfig:
        """What the file holds, interpolations unresolved; read when it is asked for, as most files never are."""
        return read_yaml(self.path)

    @property
    def title(self) -> str:
        """The file's first comment line: what this choice is."""
        first = self.path.read_text(encoding="utf-8").split("\n", 1)[0]
        return first.lstrip("# ").strip() if first.startswith("#") else ""


@dataclass(kw_only=True, slots=True)
class Library:
    """All YAML files that can be chosen; a file of `--config-dir` stands before a shipped one of the same name."""

    groups: dict[str, dict[str, Choice]] = field(default_factory=dict)
    searches: dict[str, Choice] = field(default_factory=dict)  # of `xlmrxl tune`; no part of a configuration
    faults: list[Fault] = field(default_factory=list)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Make the files known to Hydra, and leave Hydra as it was found."""
        store = ConfigStore.instance()
        before = store.repo
        store.repo = {name: node for name, node in before.items() if name not in self.groups}
        try:
            for choice in (choice for options in self.groups.values() for choice in options.values()):
                *folders, name = f"{choice.group}/{choice.name}.yaml".split("/")
                place: dict[str, Any] = store.repo
                for folder in folders:
                    place = place.setdefault(folder, {})
                place[name] = _Node(name, "/".join(folders), choice)
            store.store(name="config", node=read_yaml(shipped("conf") / "config.yaml"))
            # A module must be named, and is Hydra's own; `initialize` would look in all loaded ones for who calls it.
            with initialize_config_module("hydra.conf", version_base="1.3"):
                yield
        finally:
            store.repo = before


class _Node(ConfigNode):
    """A choice in Hydra's store, which would have all files read for the few that a run is made of."""

    def __init__(self, name: str, group: str, choice: Choice) -> None:
        self.name, self.group, self.provider, self.choice = name, group, None, choice
        self.package = "_global_" if choice.group == "recipe" else None

    def __getattr__(self, name: str) -> Any:
        if name != "node":  # Hydra sets it, once it has a copy
            raise AttributeError(name)
        return self.choice.values


def library(config_dir: str | Path | None = None) -> Library:
    """Find every YAML file of `conf/`, `recipes/` and of the user's folder; the user's are read at once."""
    found = Library()
    for folder in sorted(path for path in shipped("conf").iterdir() if path.is_dir()):
        _find(found, folder.name, folder)
    _find(found, "recipe", shipped("recipes"))
    if config_dir is not None:
        _read_own(found, config_dir)
    found.searches = found.groups.pop("search")
    return found


def _read_own(found: Library, config_dir: str | Path) -> None:
    root = Path(config_dir).expanduser().resolve()
    if not root.is_dir():
        found.faults.append(Fault(key="", text=f"--config-dir must be a folder, got {config_dir}."))
        return
    folders = [name for name in found.groups if (root / name).is_dir()]
    if not folders:
        text = f"--config-dir {config_dir} has none of the folders {', '.join(sorted(found.groups))}."
        found.faults.append(Fault(key="", text=f"{text} Put a data set at {config_dir}/dataset/<name>.yaml."))
    for name in folders:
        _find(found, name, root / name, read=True)


def _find(found: Library, group: str, folder: Path, *, read: bool = False) -> None:
    options = found.groups.setdefault(group, {})
    for path in sorted(folder.rglob("*.yaml")):
        choice = Choice(group=group, name=path.relative_to(folder).with_suffix("").as_posix(), path=path)
        try:
            if read:
                choice.values  # noqa: B018 (a fault in it is one, chosen or not)
        except ConfigError as error:
            found.faults.append(Fault(key="", text=str(error)))
            continue
        options[choice.name] = choice
