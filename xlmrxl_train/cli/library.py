"""The YAML files that can be chosen: those of `conf/` and `recipes/`, and those of the user's folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import initialize
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from xlmrxl_train.cli.typed import Fault
from xlmrxl_train.cli.yaml_files import read_yaml
from xlmrxl_train.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parents[1]


def shipped(name: str) -> Path:
    """Return the folder `conf` or `recipes`: inside the package in a wheel, beside it in a checkout."""
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


@dataclass(kw_only=True, slots=True)
class Choice:
    """One YAML file: an option of a group."""

    group: str
    name: str
    path: Path
    values: Any  # as the file holds them; interpolations unresolved

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
                folder, _, name = f"{choice.group}/{choice.name}".rpartition("/")
                package = "_global_" if choice.group == "recipe" else None
                store.store(group=folder, name=name, node=choice.values, package=package)
            store.store(name="config", node=OmegaConf.load(shipped("conf") / "config.yaml"))
            with initialize(version_base="1.3", config_path=None):
                yield
        finally:
            store.repo = before


def library(config_dir: str | Path | None = None) -> Library:
    """Read every YAML file of `conf/`, `recipes/` and of the user's folder."""
    found = Library()
    for folder in sorted(path for path in shipped("conf").iterdir() if path.is_dir()):
        _read_group(found, folder.name, folder)
    _read_group(found, "recipe", shipped("recipes"))
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
        _read_group(found, name, root / name)


def _read_group(found: Library, group: str, folder: Path) -> None:
    options = found.groups.setdefault(group, {})
    for path in sorted(folder.rglob("*.yaml")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        try:
            values = read_yaml(path)
        except ConfigError as error:
            found.faults.append(Fault(key="", text=str(error)))
            continue
        options[name] = Choice(group=group, name=name, path=path, values=values)
