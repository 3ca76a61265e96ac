"""A study that several workers share: no trial twice, none lost with a worker that is killed. Optuna's own storages."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.search.worker import SEARCH, open_study
from xlmrxl_train.config import Config
from xlmrxl_train.errors import ConfigError, RunError
from xlmrxl_train.search.results import best_of
from xlmrxl_train.search.study import KILLED, MAX_TRIES, Outcome, Study

WORKER = Path(__file__).with_name("worker.py")
FINISHED = Outcome(state="finished", score=0.5)


def worker(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, str(WORKER), str(folder), *words], stdout=subprocess.PIPE, text=True)


def kill(holder: subprocess.Popen[str]) -> int:
    """Kill a worker in the middle of its trial; return the trial's number."""
    assert holder.stdout is not None
    number = int(holder.stdout.readline())
    holder.kill()
    holder.communicate()
    return number


@pytest.mark.parametrize("storage", ["sqlite", "journal"])
def test_two_workers_never_run_the_same_trial(tmp_path: Path, storage: str) -> None:
    workers = [worker(tmp_path, storage, "finish", "14") for _ in range(2)]
    printed = [process.communicate(timeout=120)[0].split() for process in workers]
    assert [process.returncode for process in workers] == [0, 0]
    numbers = [*map(int, printed[0]), *map(int, printed[1])]
    assert sorted(numbers) == list(range(14))
    study = open_study(tmp_path, storage)
    assert study.ask(14) is None
    study.note_metric("accuracy")
    rows = open_study(tmp_path, storage).rows()
    assert [row.state for row in rows] == ["finished"] * 14 and rows[3].looks == [0.25]
    assert len({tuple(row.parameters.values()) for row in rows}) == 14  # no two workers draw the same
    best = best_of(rows, "accuracy")
    assert best is not None and (best.number, best.metric) == (13, 0.13)
    assert not list((tmp_path / "claims").iterdir())


@pytest.mark.parametrize("storage", ["sqlite", "journal"])
def test_the_trial_of_a_killed_worker_is_tried_again_in_its_folder(tmp_path: Path, storage: str) -> None:
    number = kill(worker(tmp_path, storage, "hold"))
    study = open_study(tmp_path, storage)
    claim = study.ask(1)
    assert claim is not None and (claim.number, claim.name) == (number + 1, f"trial-{number}")
    lost, again = study.rows()
    assert (lost.state, lost.why) == ("stopped", f"{KILLED}; tried again as trial {claim.number}")
    assert again.parameters == lost.parameters == claim.parameters and again.state == "running"
    assert again.folder == lost.folder
    other = open_study(tmp_path, storage)
    assert other.ask(1) is None  # the first one lives, and works at it
    study.tell(claim, FINISHED)
    assert [row.state for row in other.rows()] == ["stopped", "finished"]
    assert other.ask(1) is None


def test_a_trial_that_kills_its_workers_is_given_up(tmp_path: Path) -> None:
    study, folder = open_study(tmp_path), ""
    for _ in range(MAX_TRIES):
        claim = study.ask(1)
        assert claim is not None and folder in ("", claim.name)
        folder = claim.name
        claim.lock.close()  # what the system does when its process is gone
    assert study.ask(1) is None
    assert [row.state for row in study.rows()] == ["stopped"] * MAX_TRIES


def test_what_failed_or_was_pruned_is_not_repeated_but_what_was_stopped_is(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    for state in ("failed", "pruned", "stopped"):
        claim = study.ask(3)
        assert claim is not None
        if state == "pruned":
            claim.trial.report(0.125, 0)
        study.tell(claim, Outcome(state=state, why=f"{state}, for once"))
    rows = study.rows()
    assert [(row.state, row.why, row.metric) for row in rows] == [
        ("failed", "failed, for once", None), ("pruned", "pruned, for once", -0.125),
        ("stopped", "stopped, for once", None),
    ]  # fmt: skip
    assert best_of(rows, "loss") is None
    claim = study.ask(3)
    assert claim is not None and claim.name == "trial-2"
    study.tell(claim, FINISHED)
    assert study.ask(3) is None


def test_the_same_study_draws_the_same_values(tmp_path: Path) -> None:
    drawn = []
    for name in ("one", "two"):
        study = open_study(tmp_path / name)
        for _ in range(8):  # the last ones are no longer drawn at random
            claim = study.ask(8)
            assert claim is not None
            study.tell(claim, Outcome(state="finished", score=float(claim.parameters["optimizer.lr"])))
            study = open_study(tmp_path / name)  # as after a kill
        drawn.append([row.parameters for row in study.rows()])
    assert drawn[0] == drawn[1]


def test_another_search_is_refused(tmp_path: Path) -> None:
    open_study(tmp_path)
    config = Config()
    config.train.epochs, config.train.log_every = 5.0, 3  # how often is written is free
    with pytest.raises(RunError) as caught:
        Study(tmp_path, "sqlite", SEARCH, config)
    assert str(caught.value) == (
        f"{tmp_path} holds another study:\n  train.epochs: 3.0 there, 5.0 now\n"
        "Go on with the same words, or begin another study with --name."
    )
    (tmp_path / "study.json").write_text("{", encoding="utf-8")
    with pytest.raises(RunError, match=r"study\.json cannot be read \(.*\)\. Restore it, or begin another study with"):
        open_study(tmp_path)


def test_a_storage_that_fails_later_is_named(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    (tmp_path / "study.db").write_bytes(b"no database" * 1000)
    with pytest.raises(RunError) as caught:
        study.ask(1)
    assert str(caught.value).startswith(f"the storage of {tmp_path} failed: ")
    assert str(caught.value).endswith(". Mend it, then start the same command again.")


def test_a_storage_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        open_study(tmp_path, "mysql")
    assert str(caught.value) == (
        "--storage must be sqlite | journal | an address such as postgresql://host/name, got mysql. "
        "sqlite and journal lie in the study's folder."
    )
    open_study(tmp_path / "one", "journal")
    with pytest.raises(RunError, match=r"\n  --storage: journal there, sqlite now\n"):
        open_study(tmp_path / "one")
    with pytest.raises(RunError) as refused:
        open_study(tmp_path / "other", "sqlite:////nowhere/at/all.db?password=geheim")
    said = str(refused.value)
    assert said.startswith("--storage=sqlite:////nowhere/at/all.db?password=*** cannot be used: ")
    assert said.endswith("Mend the address or the database.") and "geheim" not in said
    open_study(tmp_path / "other")  # nothing of it was begun
    open_study(tmp_path)


def test_the_folder_must_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(
        RunError, match=r"file must be a folder that can be written, with file locks: Not a directory\."
    ):
        open_study(tmp_path / "file")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("", encoding="utf-8")
    with pytest.raises(RunError, match=r"--name must be that of a study or a new one, but .*/run holds a run\. Choose"):
        open_study(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]
