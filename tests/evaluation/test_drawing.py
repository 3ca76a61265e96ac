"""`xlmrxl report --figures`: which files there are, that they are vectors, and that every language can be written."""

import re
import struct
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.browser.pages import write_runs
from tests.evaluation.comparison.folders import right, write_run
from xlmrxl_train.cli import main
from xlmrxl_train.data.languages import _table
from xlmrxl_train.evaluation import drawing

Capture = pytest.CaptureFixture[str]
NAMES = {"scores", "languages_by_step", "transfer_by_step", "training_loss", "learning_rate", "real_tokens_per_second"}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The figures of two groups of two seeds."""
    folder = tmp_path_factory.mktemp("drawn")
    runs = write_runs(folder / "a", seeds=2) + write_runs(folder / "b", seeds=2, shift=3, lr="2e-3")
    assert main(["report", *map(str, runs), "--figures", str(folder / "figures")]) == 0
    return folder / "figures"


def test_every_figure_is_there_in_every_form(drawn: Path) -> None:
    names = NAMES - {"languages_by_step"} | {"languages_by_step-a", "languages_by_step-b"}
    assert {path.name for path in drawn.iterdir()} == {f"{name}.{end}" for name in names for end in drawing.FORMATS}
    for name in names:
        head = (drawn / f"{name}.png").read_bytes()[:24]
        width, height = struct.unpack(">II", head[16:])
        assert width == 1650 and 600 < height < 1600  # 5.5 inches at 300 dots
        assert (drawn / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        tags = [element.tag.rpartition("}")[2] for element in ElementTree.parse(drawn / f"{name}.svg").iter()]
        assert not {"image", "text"} & set(tags) and tags.count("path") > 30  # all is lines, letters too


def test_labels_say_what_is_drawn(drawn: Path) -> None:
    comments = re.findall(r"<!-- (.*?) -->", (drawn / "scores.svg").read_text(encoding="utf-8"))
    assert {"English (en)", "Urdu (ur)", "accuracy, %", "A", "B"} <= set(comments)
    comments = re.findall(r"<!-- (.*?) -->", (drawn / "transfer_by_step.svg").read_text(encoding="utf-8"))
    assert {"optimizer step", "A: mean", "B: transfer gap", "accuracy, %"} <= set(comments)
    comments = re.findall(r"<!-- (.*?) -->", (drawn / "training_loss.svg").read_text(encoding="utf-8"))
    assert {"training loss", "A", "B"} <= set(comments) and "seed 1" not in comments


def test_one_run_has_one_heat_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "FORMATS", ("svg",))
    (run,) = write_runs(tmp_path / "a")
    for name in ("one", "two"):
        assert main(["report", str(run), "--figures", str(tmp_path / name)]) == 0
    assert {path.stem for path in (tmp_path / "one").iterdir()} == NAMES
    for name in NAMES:  # the same runs, the same files
        assert (tmp_path / f"one/{name}.svg").read_bytes() == (tmp_path / f"two/{name}.svg").read_bytes(), name


def test_the_name_of_every_language_can_be_written(tmp_path: Path) -> None:
    """A letter that the font lacks is a warning, and a warning an error."""
    codes = sorted({entry.code for entry in _table().values()})
    run = write_run(tmp_path / "run", {code: right(0.5, 4) for code in codes}, predictions=False)
    assert main(["report", str(run), "--figures", str(tmp_path / "figures")]) == 0
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"scores.png", "scores.svg", "scores.pdf"}


def test_neither_a_display_nor_matplotlib_is_needed_before(tmp_path: Path) -> None:
    program = "import sys, xlmrxl_train.cli.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0


def test_faults(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", {"de": right(0.5, 4)})
    assert main(["report", str(run), "--figures"]) == 2
    assert capsys.readouterr().err == "error: --figures must be a folder, got nothing. Write --figures figures/.\n"
    place = run / "config.yaml"
    assert main(["report", str(run), "--figures", str(place)]) == 2
    assert f"error: --figures must be a folder, got the file {place}. Name another place.\n" == capsys.readouterr().err
    assert main(["report", str(run), "--figures", str(place / "below")]) == 2
    assert f"error: --figures {place / 'below'} cannot be written: Not a directory. " in capsys.readouterr().err
    monkeypatch.setattr(drawing, "find_spec", lambda name: None)
    assert main(["report", str(run), "--figures", str(tmp_path / "figures")]) == 2
    said = "error: --figures needs the package matplotlib, found none. Install it: pip install 'xlmrxl_train[figures]'."
    assert capsys.readouterr().err == f"{said}\n" and not (tmp_path / "figures").exists()
