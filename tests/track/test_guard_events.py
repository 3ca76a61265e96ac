"""What trackers hold of a run whose guard went back, and that was interrupted after it."""

from pathlib import Path

import pytest

from tests.track.read_back import expected, mlflow_scalars, tensorboard_scalars, wandb_history, wandb_sessions
from xlmrxl_train import load_config, train
from xlmrxl_train.track import trackers
from xlmrxl_train.track.json_lines import JsonLines

# Seen at chance after 2 of warm-up and a window of 12; then it only warns.
WORDS = ["recipe=demo", "model.path=null", "train.max_steps=30", "train.log_every=1", "train.save_model=false"]
WORDS += ["evaluate.every=0", "evaluate.test=false", "train.checkpoint_every=5", "optimizer.lr=0.1"]
WORDS += ["guard=act", "guard.window=12", "guard.max_actions=1"]


def wandb_curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    curves: dict[str, list[tuple[int, float]]] = {}
    for session in wandb_sessions(run):
        for row in wandb_history(session):
            step = row.pop("step")
            for name, value in row.items():
                curves.setdefault(name, []).append((step, value))
    return curves


READ = {"tensorboard": tensorboard_scalars, "mlflow": mlflow_scalars, "wandb": wandb_curves}


@pytest.mark.parametrize(
    "name", ["tensorboard", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mlflow", "wandb"))]
)
def test_every_step_is_told_once_and_none_goes_back(tmp_path, monkeypatch, name) -> None:
    folder, log, told = tmp_path / "run", JsonLines.log, 0
    monkeypatch.setattr(trackers, "LAST_WORDS", 90.0)  # a busy machine is not the subject here

    def break_off(self: JsonLines, event: str, values: dict) -> None:
        nonlocal told
        log(self, event, values)
        told += 1
        if told == 23:  # 14 steps, going back, and 8 more
            raise RuntimeError("the test")

    config = load_config([f"run.dir={folder}", f"tracker={name}", *WORDS])
    with monkeypatch.context() as patch:
        patch.setattr(JsonLines, "log", break_off)
        with pytest.raises(RuntimeError, match="the test"):
            train(config)
    assert train(config) is not None
    curves, wanted = READ[name](folder), expected(folder)
    assert wanted["guard/chance"][0] == (14, 1.0) and wanted["guard/back_to"] == [(14, 0)]
    assert [step for step, _ in wanted["train/loss"]] == list(range(1, 45))
    for curve in ("train/loss", "train/lr", "guard/chance", "guard/back_to", "guard/rate"):
        assert curves[curve] == [(step, pytest.approx(value, rel=1e-6)) for step, value in wanted[curve]], curve
