"""XTREME's table: what is averaged, what is missing, what stands beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.comparison.folders import right, write_run
from xlmrxl_train.cli import main
from xlmrxl_train.errors import RunError
from xlmrxl_train.evaluation.comparison.comparing import Comparison, compare
from xlmrxl_train.evaluation.comparison.published import published_sets
from xlmrxl_train.evaluation.comparison.reading import find_runs
from xlmrxl_train.evaluation.comparison.xtreme import CATEGORIES, Row

SETS = published_sets()
NOT_TRAINED: Mapping[str, Any] = {"train_languages": [], "training": {}, "steps": 0}


def task(folder: Path, name: str, share: float, *, languages: Sequence[str] | None = None, **changes: Any) -> Path:
    """Write a run of one task that is right in this share of its official examples."""
    item = SETS[name]
    guesses = {}
    for code in languages or item.languages:
        n = 10 * -(-item.n.get(code, 100) // 10)
        predicted, truth = right(share, n)
        predicted, truth = predicted[: item.n.get(code, 100)], truth[: item.n.get(code, 100)]
        if "squad_f1" in item.score or "mlqa_f1" in item.score:
            guesses[code] = (
                ["a" if hit == 0 else "b" for hit in predicted],
                [{"texts": ["a"], "language": code} for _ in truth],
            )
        elif item.score == ["accuracy"]:
            guesses[code] = (predicted, truth)
        else:
            raise AssertionError(name)
    settings = {"dataset": item.datasets[0], "recipe": f"xtreme/{name}"} | changes
    return write_run(folder / name / "seed-1", guesses, names=item.score, predictions=False, **settings)


def table(folder: Path) -> tuple[Comparison, dict[str, Row]]:
    found = compare(find_runs([str(folder)]), paired=False)
    assert found.xtreme is not None
    return found, {row.name: row for row in found.xtreme.rows}


def test_the_categories_are_xtremes() -> None:
    """Source: google-research/xtreme, evaluate.py @ 091824888a60, GROUP2TASK."""
    assert {task for tasks in CATEGORIES.values() for task in tasks} == set(SETS)
    assert [len(tasks) for tasks in CATEGORIES.values()] == [2, 2, 3, 2]


def test_a_category_is_the_mean_of_its_tasks_and_needs_them_all(tmp_path: Path) -> None:
    task(tmp_path, "xnli", 0.7)
    _, rows = table(tmp_path)
    own = rows["classification"].own["tiny"]
    assert own.score is None and own.reason == "1 of 2 tasks"
    assert rows["PAWS-X"].own["tiny"].reason == "not run"
    task(tmp_path, "paws_x", 0.9)
    _, rows = table(tmp_path)
    own = rows["classification"].own["tiny"]
    assert own.score is not None and own.score.mean == pytest.approx((0.7 + 0.9) / 2, abs=1e-3)
    assert rows["all nine tasks"].own["tiny"].reason == "2 of 9 tasks"
    run = rows["the tasks run"].own["tiny"]
    assert run.score is not None and run.score.mean == pytest.approx(own.score.mean) and run.caveat == "2 of 9 tasks"


def test_published_scores_and_differences(tmp_path: Path) -> None:
    task(tmp_path, "xnli", 0.7)
    task(tmp_path, "paws_x", 0.9)
    _, rows = table(tmp_path)
    large = rows["XNLI"].published["XLM-R large"]
    assert large.score == pytest.approx(0.792) and large.differences["tiny"] == pytest.approx(0.7 - 0.792)
    assert large.source is not None and "2003.11080" in large.source
    average = rows["classification"].published["XLM-R large"]
    assert average.score == pytest.approx((0.792 + 0.864) / 2)
    assert average.differences["tiny"] == pytest.approx(0.8 - 0.828, abs=1e-3)
    assert rows["XNLI"].published["XLM-R XL"].reason == "none known"
    assert rows["UDPOS"].published["XLM-R large"].reason == "none known"
    assert rows["TyDiQA-GoldP"].published["XLM-R large"].reason == "no exact match known"
    assert rows["all nine tasks"].published["XLM-R large"].reason == "incomplete"


def test_what_is_not_official_is_marked_and_stands_alone(tmp_path: Path) -> None:
    task(tmp_path, "xnli", 0.7, languages=["en", "de"])
    task(tmp_path, "paws_x", 0.9, stand_ins=["half of the development set"])
    _, rows = table(tmp_path)
    assert rows["XNLI"].own["tiny"].caveat == "2 of 15 languages"
    assert rows["XNLI"].published["XLM-R large"].reason == "2 of 15 languages"
    assert rows["PAWS-X"].published["XLM-R large"].reason == "stand-in data"
    assert rows["classification"].own["tiny"].caveat == "not all of the official data (XNLI, PAWS-X)"


def test_question_answering_is_the_mean_of_f1_and_exact_match(tmp_path: Path) -> None:
    item = SETS["mlqa"]
    guesses = {
        code: (["a b"] * 4, [{"texts": [answer], "language": code} for answer in ("a b", "a c", "c", "d")])
        for code in item.languages
    }
    write_run(tmp_path / "mlqa", guesses, names=item.score, dataset="MLQA", recipe="xtreme/mlqa", predictions=False)
    _, rows = table(tmp_path)
    own = rows["MLQA"].own["tiny"]
    f1, exact = own.by_metric["mlqa_f1"], own.by_metric["mlqa_exact_match"]
    assert exact == pytest.approx(0.25) and f1 > exact
    assert own.score is not None and own.score.mean == pytest.approx((f1 + exact) / 2)
    assert own.caveat is not None and own.caveat.startswith("n differs: en 4, official 11,590")


def test_retrieval_without_training_stands_beside_what_was_not_trained(tmp_path: Path) -> None:
    item = SETS["tatoeba"]
    guesses = {code: ([(0, 0)] * item.n[code], [0] * item.n[code]) for code in item.languages}
    for name, protocol in (("as-it-is", NOT_TRAINED), ("trained", {})):
        write_run(
            tmp_path / name, guesses, names=item.score, dataset="Tatoeba", recipe="xtreme/tatoeba", predictions=False,
            **protocol,
        )  # fmt: skip
    _, rows = table(tmp_path / "as-it-is")
    assert rows["Tatoeba"].published["XLM-R large"].differences["tiny"] == pytest.approx(1 - 0.573)
    _, rows = table(tmp_path / "trained")
    assert rows["Tatoeba"].published["XLM-R large"].reason == "trained here"


def test_two_models_have_a_column_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task(tmp_path / "one", "xnli", 0.7)
    task(tmp_path / "two", "xnli", 0.8, model="mini")
    task(tmp_path / "two", "paws_x", 0.8, model="mini")
    found, rows = table(tmp_path)
    assert found.xtreme is not None and found.xtreme.models == ["tiny", "mini"]
    assert rows["PAWS-X"].own["tiny"].reason == "not run" and rows["PAWS-X"].own["mini"].score is not None
    assert main(["report", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "| XNLI | accuracy | 70.0 | 80.0 | 79.2 (-9.2, +0.8) |" in said.out
    assert "| PAWS-X | accuracy | not run | 80.0 | 86.4 (-, -6.4) |" in said.out
    assert "### Languages by tasks: mini" in said.out
    assert "| sw | 70.0 |  |" in said.out and "| de | 70.0 | not run | not run |" in said.out
    assert "Each task with intervals: --output report.md" in said.err


def test_two_configurations_of_one_task_and_model_are_refused(tmp_path: Path) -> None:
    task(tmp_path / "one", "xnli", 0.7)
    task(tmp_path / "two", "xnli", 0.8, overrides=["recipe=demo", "optimizer.lr=2e-3"])
    with pytest.raises(
        RunError, match=r"one configuration per task and model, got two of XNLI with tiny: .* Leave one out"
    ):
        table(tmp_path)


def test_what_used_target_labels_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task(tmp_path, "xnli", 0.7, select_split="validation", select_languages=["en", "de"])
    assert main(["report", str(tmp_path)]) == 0
    page = capsys.readouterr().out
    assert "**XNLI (tiny): cross-lingual, selected with labels of de" in page
    assert "zero-shot" not in page
