"""What the README says and a command can check."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from xlmrxl_train.cli import COMMANDS, load_config
from xlmrxl_train.config import DatasetConfig

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
COMMAND_LINES = [
    line.strip().split("#")[0].strip()
    for line in README.splitlines()
    if re.match(r"    (python -m xlmrxl_train|torchrun|xlmrxl) ", line)
]


@pytest.mark.parametrize(
    "line",
    [
        line
        for line in COMMAND_LINES
        if re.search(r"recipe=\w", line) and "glob" not in line and "--config-dir" not in line
    ],
)
def test_every_command_line_composes(line: str) -> None:
    words = [word for word in shlex.split(line) if "=" in word]
    load_config([re.sub(r"=([^,\[]+),.*", r"=\1", word) for word in words])  # the first job of a sweep


def test_sub_commands_exist() -> None:
    named = {line.split()[1] for line in COMMAND_LINES if line.startswith("xlmrxl ")}
    assert named <= set(COMMANDS)
    assert named


def test_the_table_of_recipes_names_them_all() -> None:
    table = README.split("## Recipes")[1].split("`model=")[0]
    named = set(re.findall(r"`([a-z0-9_]+)`", table))
    assert named == {path.stem for path in (REPOSITORY / "recipes").glob("*.yaml")}


@pytest.mark.parametrize(("name", "recipe"), [("reviews", "xnli"), ("drugs", "panx")])
def test_the_data_sets_of_the_readme_are_some(name: str, recipe: str, tmp_path: Path) -> None:
    text = README.split(f"# my_conf/dataset/{name}.yaml")[1].split("    python -m")[0]
    (tmp_path / "dataset").mkdir()
    file = tmp_path / "dataset" / f"{name}.yaml"
    file.write_text("\n".join(line[4:] for line in text.splitlines()), encoding="utf-8")
    assert set(yaml.safe_load(file.read_text(encoding="utf-8"))) <= {*DatasetConfig.__dataclass_fields__}
    dataset = load_config([f"recipe={recipe}", f"dataset={name}", "data.root=my_data"], config_dir=tmp_path).dataset
    assert dataset.languages == {"reviews": ["en", "de", "no"], "drugs": ["en", "de"]}[name]
    assert dataset.label_values.get("no") == {"reviews": "contradiction"}.get(name)


def test_files_and_folders_exist() -> None:
    tree = README.split("## How it is built")[1].split("One step:")[0]
    names = re.findall(r"^      ([a-z_]+(?:/|\.py))", tree, flags=re.MULTILINE)
    assert len(names) > 10
    for name in names:
        assert (REPOSITORY / "xlmrxl_train" / name).exists(), name
    package = {path.name for path in (REPOSITORY / "xlmrxl_train").iterdir() if path.is_dir()} - {"__pycache__"}
    assert package == {name.rstrip("/") for name in names if name.endswith("/")}


def test_the_commands_of_the_makefile_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^    make ([a-z-]+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
