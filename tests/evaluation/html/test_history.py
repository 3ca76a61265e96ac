"""What metrics.jsonl says of a run over its steps."""

import json
from pathlib import Path

import pytest

from xlmrxl_train.evaluation.html.history import read_history


def test_what_the_guard_undid_is_in_no_curve_but_its_time_counts(tmp_path: Path) -> None:
    def train(step: int, loss: float) -> dict:
        speed = {"tokens": 100 * step, "tokens_per_second": 50, "energy_wh": 2}
        return {"event": "train", "step": step, "loss": loss, **speed}

    def score(step: int, value: float) -> list[dict]:
        line = {"step": step, "split": "validation"}
        return [{"event": "evaluate", **line, "language": "en", "accuracy": value}, {"event": "averages", **line}]

    back = {"event": "guard", "step": 30, "fault": "chance", "text": "a loss", "back_to": 15, "rate": 0.5}
    before = [train(10, 1.0), *score(15, 0.5), train(20, 2.0), train(30, 3.0), *score(30, 0.3)]
    lines = [*before, back, train(20, 0.9), train(30, 0.8), *score(30, 0.7), {"event": "skip", "step": 31}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    history = read_history(tmp_path)
    assert [(line["step"], line["loss"]) for line in history.train] == [(10, 1.0), (20, 0.9), (30, 0.8)]
    assert {step: found["en"]["accuracy"] for step, found in history.languages.items()} == {15: 0.5, 30: 0.7}
    assert list(history.averages) == [15, 30]
    assert history.guard == [back] and [event["event"] for event in history.events] == ["skip"]
    assert history.seconds == pytest.approx(3 * 20 + 2 * 20) and history.energy == 5 * 2
