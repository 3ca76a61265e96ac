"""Folders that are runs, and what is said of those that are not."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.evaluation.comparison.folders import right, write_run
from xlmrxl_train.cli import main
from xlmrxl_train.errors import RunError
from xlmrxl_train.evaluation.comparison.reading import find_runs

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(name: str, **changes) -> Path:
    return write_run(Path(name), {"en": right(0.5, 10)}, **changes)


def found(*words: str) -> list[str]:
    return [str(item.folder) for item in find_runs(words).finished]


def test_folders_globs_and_what_lies_below() -> None:
    for name in ("runs/x/seed-1", "runs/x/seed-2", "runs/y/seed-1"):
        run(name)
    Path("runs/x/notes.txt").write_text("mine")
    assert found("runs/x/seed-2") == ["runs/x/seed-2"]
    assert found("runs/x/*") == found("runs/x") == ["runs/x/seed-1", "runs/x/seed-2"]
    assert found("runs", "runs/y/seed-1") == ["runs/x/seed-1", "runs/x/seed-2", "runs/y/seed-1"]
    assert found(str(Path("runs").resolve() / "*" / "seed-[1]")) == [
        str(Path("runs").resolve() / name) for name in ("x/seed-1", "y/seed-1")
    ]


def test_a_later_evaluation_is_read_with_the_configuration_of_its_run() -> None:
    run("run")
    target = write_run(Path("run/evaluation/sample_nli"), {"de": right(0.5, 10)})
    (target / "config.yaml").unlink()
    (later,) = find_runs([str(target)]).finished
    assert list(later.languages) == ["de"] and later.settings["run.dir"] == "run"
    assert found("run") == ["run"]


def damage(**changes: object) -> Callable[[], None]:
    def change() -> None:
        path = Path("run/report.json")
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def text(name: str, content: str) -> Callable[[], None]:
    return lambda: Path(name).write_text(content) and None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (text("run/report.json", "{"), "run/report.json must be the report of a run, got a damaged or different file"),
        (text("run/report.json", "[" * 100_000), "run/report.json must be the report of a run, got a damaged"),
        (text("run/report.json", "[1]"), "(list indices must be integers"),
        (damage(protocol={}), "(no 'protocol.dataset'). Restore it; or remove it and start the run's command again"),
        (damage(metrics=["bleu"]), "(no 'bleu'). Restore it"),
        (damage(languages={"en": {"accuracy": "high", "n": 3}}), "(scores of en that are no numbers). Restore it"),
        (damage(languages={}), "run has scored no language (evaluate.test=false?), so there is nothing to report."),
        (text("run/config.yaml", "a: ["), "run/config.yaml cannot be read: while parsing a flow node. Restore it"),
        (text("run/config.yaml", "- a"), "run/config.yaml cannot be read: it must hold keys and values. Restore it"),
    ],
)
def test_a_damaged_run_is_named(change: Callable[[], None], message: str, capsys: Capture) -> None:
    run("run")
    change()
    assert main(["report", "run"]) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and said.out == ""


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("nowhere", "nowhere is not a run folder: it does not exist. Give folders that training runs wrote"),
        ("runs/*", "runs/* is not a run folder: it matches nothing. Give"),
        ("runs/**x", "runs/**x is not a run folder: Invalid pattern: '**' can only be an entire path component. Give"),
        ("empty", "empty is not a run folder: no run is in it or below it. Give"),
        ("file", "file is not a run folder: it is a file. Give"),
        ("~no-such-user/x", "is not a run folder: Could not determine home directory. Give"),
        ("x" * 5000, "x is not a run folder: "),
    ],
)
def test_what_is_no_run_is_named(word: str, message: str, capsys: Capture) -> None:
    Path("empty/inner").mkdir(parents=True)
    Path("file").write_text("x")
    assert main(["report", word]) == 2
    said = capsys.readouterr().err
    assert message in said and said.startswith("error: ") and len(said) < 600


def test_all_faults_come_together() -> None:
    run("run")
    Path("run/report.json").write_text("{")
    with pytest.raises(RunError) as caught:
        find_runs(["run", "nowhere"])
    assert len(str(caught.value).splitlines()) == 2


def test_a_run_that_is_not_finished_is_left_out_and_said(capsys: Capture) -> None:
    run("runs/seed-1")
    run("runs/seed-2", seed=2)
    Path("runs/seed-2/report.json").unlink()
    Path("runs/seed-2/checkpoints/step-00001200").mkdir(parents=True)
    assert main(["report", "runs"]) == 1
    said = capsys.readouterr()
    line = (
        "runs/seed-2 is not finished (its last checkpoint is of step 1,200), so it is left out. Start its command again"
    )
    assert line in said.err and line in said.out and "| en |" in said.out
    assert main(["report", "runs/seed-2"]) == 2
    assert line in capsys.readouterr().err


def test_mixed_data_sets_are_refused(capsys: Capture) -> None:
    run("a")
    run("b", dataset="reviews")
    run("c", split="validation")
    assert main(["report", "a", "b", "c"]) == 2
    assert capsys.readouterr().err == (
        "error: Runs must be of one data set and split, or of XTREME's tasks, got sample NLI test (a), "
        "reviews test (b), sample NLI validation (c). Report each data set by itself.\n"
    )


def test_the_command_does_not_wait_for_torch() -> None:
    run("run")
    program = (
        "import sys\nfrom xlmrxl_train.cli import main\nassert main(['report', 'run', '--output', 'r.json']) == 0\n"
        "assert not {'torch', 'transformers', 'datasets', 'pyarrow'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
