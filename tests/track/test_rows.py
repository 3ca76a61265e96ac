"""Lines of metrics.jsonl become rows of numbers."""

from xlmrxl_train.track.rows import Row, Rows


def test_the_lines_of_one_evaluation_are_one_row() -> None:
    rows = Rows()
    assert rows.add({"event": "train", "step": 7, "loss": 0.5, "grad_norm": None, "epoch": 0.1}) == [
        Row(position=(7, 1), values={"train/loss": 0.5, "train/epoch": 0.1})
    ]
    line = {"event": "evaluate", "step": 7, "split": "validation"}
    assert rows.add({**line, "language": "en", "accuracy": 0.9, "n": 60}) == []
    assert rows.add({**line, "language": "de", "accuracy": 0.7, "n": 60}) == []
    assert rows.add({"event": "selection", "step": 7, "metric": "accuracy", "score": 0.9}) == []
    assert rows.add(
        {"event": "averages", "step": 7, "split": "validation", "accuracy": {"mean": 0.8, "gap": None}}
    ) == [
        Row(
            position=(7, 2),
            values={
                "validation/accuracy/en": 0.9,
                "validation/accuracy/de": 0.7,
                "selection/score": 0.9,
                "validation/accuracy/mean": 0.8,
            },
        )
    ]
    assert rows.rest() == []


def test_an_evaluation_without_averages_ends_with_the_next_line() -> None:
    rows = Rows()
    rows.add({"event": "evaluate", "step": 8, "split": "test", "language": "en", "accuracy": 0.9})
    assert [row.position for row in rows.add({"event": "train", "step": 9, "loss": 1})] == [(8, 3), (9, 1)]


def test_skipped_steps_and_events_of_later_versions() -> None:
    rows = Rows()
    assert rows.add({"event": "skip", "step": 3, "grad_norm": "nan", "examples": ["a"]}) == [
        Row(position=(3, 0), values={"skip": 1.0})
    ]
    assert rows.add({"event": "guard", "step": 4, "text": "spike", "ratio": 9.5}) == [
        Row(position=(4, 0), values={"guard/ratio": 9.5})
    ]
    assert rows.add({"event": "note", "text": "nothing to draw"}) == []
