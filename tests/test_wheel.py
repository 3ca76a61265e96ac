"""The built wheel holds what a run needs: installed elsewhere, it composes a recipe, without the checkout."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(REPOSITORY)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an environment with the wheel in it.

    Nothing is fetched: the dependencies come from this environment, through a line in a .pth file.
    """
    folder = tmp_path_factory.mktemp("elsewhere") / "environment"
    venv.create(folder, with_pip=False)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / version / "site-packages"
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    return folder


def run(installed: Path, words: list[str], cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_wheel_holds_every_yaml_and_data_file_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("conf", "recipes"):
        for path in (REPOSITORY / folder).rglob("*.yaml"):
            assert f"xlmrxl_train/{path.relative_to(REPOSITORY).as_posix()}" in names
    for path in (REPOSITORY / "xlmrxl_train").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert path.relative_to(REPOSITORY).as_posix() in names
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"xlmrxl_train"}
    assert wheel.stat().st_size < 2_000_000


def test_wheel_composes_a_recipe_elsewhere(installed: Path, tmp_path: Path) -> None:
    python = str(installed / "bin" / "python")
    where = run(installed, [python, "-c", "import xlmrxl_train; print(xlmrxl_train.__file__)"], tmp_path)
    assert Path(where.strip()).is_relative_to(installed)
    text = run(installed, [python, "-m", "xlmrxl_train", "--cfg", "job", "recipe=xnli"], tmp_path)
    values = yaml.safe_load(text)
    assert values["model"]["path"] == "facebook/xlm-roberta-xl"
    assert len(values["dataset"]["languages"]) == 15


def test_console_command(installed: Path, tmp_path: Path) -> None:
    assert run(installed, [str(installed / "bin" / "xlmrxl"), "--version"], tmp_path).startswith("xlmrxl_train ")
    assert "XNLI, zero-shot" in run(installed, [str(installed / "bin" / "xlmrxl"), "--help"], tmp_path)
