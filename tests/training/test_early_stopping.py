"""train.patience ends training by the validation split: on all ranks, once, and the same after a kill.

The validation split of jobs.py scores a third whatever the model says: the first look at it, after step 7, stays the
best one, and that after step 14 is one look without a better score.
"""

import json
import shutil
from pathlib import Path

import pytest
from jobs import WORDS, events, run

from tests.torchrun import torchrun
from xlmrxl_train.cli.compose import load_config
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.training.state import TrainState

PATIENT = "train.patience=1"
NOTE = "Training ended early, after step 14: no better score in 1 looks at the validation split."


@pytest.fixture(scope="module")
def ended(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("early") / "run"
    report = run(folder, PATIENT)
    assert report is not None and report.notes == [NOTE]
    return folder


def test_training_ends_and_everything_says_so(ended) -> None:
    said = events(ended)
    assert max(event["step"] for event in said if event["event"] == "train") == 14
    assert [event for event in said if event["event"] == "early_stop"] == [
        {"event": "early_stop", "step": 14, "best_step": 7}
    ]
    scores = [(event["step"], event["metric"]) for event in said if event["event"] == "selection"]
    assert scores == [(7, "accuracy"), (14, "accuracy")]
    stored = json.loads((ended / "report.json").read_text(encoding="utf-8"))
    assert stored["notes"] == [NOTE]
    assert (stored["protocol"]["steps"], stored["protocol"]["selected_step"]) == (14, 7)
    assert f"- {NOTE}" in (ended / "report.md").read_text(encoding="utf-8")
    assert (ended / "checkpoints/step-00000014").is_dir()


@pytest.mark.parametrize("lost", [[], [12, 14]], ids=["killed after the end", "killed before it"])
def test_a_killed_run_comes_to_the_same_end(ended, tmp_path, capfd, lost) -> None:
    folder = Path(shutil.copytree(ended, tmp_path / "run"))
    (folder / "report.json").unlink()
    for step in lost:
        shutil.rmtree(folder / f"checkpoints/step-{step:08d}")
    report = run(folder, PATIENT, f"run.dir={folder}")
    assert report is not None and report.notes == [NOTE]
    assert events(folder) == events(ended)
    assert ("training ends after step 14" in capfd.readouterr().err) == bool(lost)


def test_two_ranks_end_at_the_same_step(ended, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    words = [*WORDS, PATIENT, f"run.dir={tmp_path / 'run'}"]
    done = torchrun(Path(__file__).with_name("ranks.py"), str(tmp_path / "out"), "command", *words)
    assert done.returncode == 0, done.stderr
    ours, theirs = (
        [event for event in events(folder) if event["event"] in ("selection", "early_stop")]
        for folder in (tmp_path / "run", ended)
    )
    assert ours == theirs and len(ours) == 3


def test_a_small_gain_does_not_count() -> None:
    state, used = TrainState(), []
    for score in (0.50, 0.505, 0.512, None, 0.52, 0.521):
        state.weigh(score, 0.01)
        used.append(state.patience_used)
    assert used == [0, 1, 0, 1, 2, 3]  # 0.52 is not above 0.512 by more than 0.01
    state = TrainState()
    for score in (0.5, 0.5, 0.501):
        state.weigh(score, 0.0)
    assert (state.patience_used, state.patience_score) == (0, 0.501)


@pytest.mark.parametrize(
    ("words", "got"), [(["evaluate.select=last"], "last and None"), (["evaluate.every=0"], "best and 0")]
)
def test_it_wants_a_score_that_selects(words: list[str], got: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(["recipe=xnli", PATIENT, *words])
    assert str(caught.value) == (
        f"train.patience must go with evaluate.select=best and evaluate.every above 0, got {got}. "
        "Set both, or train.patience=null."
    )


def test_it_wants_a_validation_split(tmp_path) -> None:
    with pytest.raises(ConfigError) as caught:
        run(tmp_path / "run", PATIENT, "train.languages=[de]", "dataset.files.validation=[]")
    assert str(caught.value) == (
        "train.patience needs a language with a validation split of fixed in evaluate.select_languages, got none. "
        "Name one, or set train.patience=null."
    )
    assert not (tmp_path / "run").exists()
