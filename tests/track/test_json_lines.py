"""metrics.jsonl across resumes."""

import json

from xlmrxl_train.track.json_lines import JsonLines


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_resuming_drops_later_steps_and_a_half_written_line(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = JsonLines(path, keep=0)
    for step in (10, 20, 30):
        log.log("train", {"step": step, "loss": 1.0})
    log.close()
    with path.open("a", encoding="utf-8") as stream:
        stream.write('{"event": "train", "step": 4')
    log = JsonLines(path, keep=2)
    log.log("train", {"step": 30, "loss": 0.5})
    log.close()
    assert [line["step"] for line in lines(path)] == [10, 20, 30]
    assert lines(path)[-1]["loss"] == 0.5


def test_numbers_that_json_lacks_become_null(tmp_path) -> None:
    log = JsonLines(tmp_path / "m.jsonl", keep=0)
    log.log("train", {"step": 1, "loss": float("nan"), "norms": [float("inf"), 1.0]})
    log.close()
    assert lines(tmp_path / "m.jsonl") == [{"event": "train", "step": 1, "loss": None, "norms": [None, 1.0]}]
