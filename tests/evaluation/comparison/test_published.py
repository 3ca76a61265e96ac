"""Published scores: their files are consistent, and they stand beside ours only where that is fair."""

from pathlib import Path

import pytest

from tests.evaluation.comparison.folders import right, write_run
from xlmrxl_train import metrics
from xlmrxl_train.data.languages import language
from xlmrxl_train.evaluation.comparison.comparing import MEAN, Part, compare
from xlmrxl_train.evaluation.comparison.published import NOTHING, PublishedColumn, published_sets, set_of
from xlmrxl_train.evaluation.comparison.reading import find_runs

SETS = published_sets()
COLUMNS = [(name, column) for name, item in SETS.items() for column in item.columns]


def test_there_is_a_set_for_every_task_of_xtreme() -> None:
    assert set(SETS) == {"xnli", "paws_x", "panx", "udpos", "xquad", "mlqa", "tydiqa", "bucc", "tatoeba"}


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_whole(name: str) -> None:
    item = SETS[name]
    assert all(language(code).base == code for code in item.languages)
    assert len(set(item.languages)) == len(item.languages)
    assert set(item.score) <= set(metrics.NAMES)
    assert set_of(item.name) is item
    if item.columns:
        assert set(item.n) == set(item.languages) and min(item.n.values()) > 0


def test_languages_are_as_many_as_xtreme_has() -> None:
    """Source: google-research/xtreme, evaluate.py @ 091824888a60, TASK2LANGS."""
    assert {name: len(item.languages) for name, item in SETS.items()} == {
        "xnli": 15, "paws_x": 7, "panx": 40, "udpos": 33, "xquad": 11, "mlqa": 7, "tydiqa": 9, "bucc": 4, "tatoeba": 36,
    }  # fmt: skip


def test_numbers_of_examples_add_up_to_those_of_the_hub() -> None:
    """Source: the sums in google/xtreme's card."""
    assert sum(SETS["xnli"].n.values()) == 75_150 and sum(SETS["tydiqa"].n.values()) == 5_077


@pytest.mark.parametrize(("name", "column"), COLUMNS, ids=[f"{name} {column.title}" for name, column in COLUMNS])
def test_a_column_is_consistent(name: str, column: PublishedColumn) -> None:
    item = SETS[name]
    assert column.trained in ("zero-shot", "translate-train-all", NOTHING) and len(column.source) > 10
    assert set(column.mean) <= set(item.score) and set(column.values) <= set(column.mean)
    for metric, values in column.values.items():
        assert list(values) == item.languages
        assert sum(values.values()) / len(values) == pytest.approx(column.mean[metric], abs=0.000501 + 1e-9)
    assert all(0 < value < 1 for value in column.mean.values())


def test_the_stray_value_of_fairseqs_row_is_left_out() -> None:
    """That README's row of xlmr.xl has 85.4, its average, as a 16th value after the 15 languages."""
    (column,) = [column for column in SETS["xnli"].columns if column.model == "XLM-R XL"]
    values = list(column.values["accuracy"].values())
    assert len(values) == 15 and values[-1] == pytest.approx(0.782)
    with_stray = (sum(values) + 0.854) / 16
    assert with_stray != pytest.approx(sum(values) / 15, abs=1e-6)


# Beside ours


def part(folder: Path) -> Part:
    (found,) = compare(find_runs([str(folder)]), paired=False).parts
    return found


def xnli(folder: Path, languages: list[str], n: int = 5010, **changes) -> Path:
    values = {"dataset": "XNLI"} | changes
    return write_run(folder, {code: right(0.8, n) for code in languages}, predictions=False, **values)


def shown(found: Part) -> dict[str, str]:
    """Return each column that stands beside ours, or why not."""
    return {
        f"{beside.column.title}, {beside.column.trained}": beside.refused.get("A", "")
        if not beside.differences
        else "shown"
        for beside in found.published
    }


ALL = SETS["xnli"].languages


def test_the_same_data_and_training_stand_beside_ours(tmp_path: Path) -> None:
    found = part(xnli(tmp_path, ALL))
    assert shown(found) == {
        "XLM-R large (XTREME), zero-shot": "shown",
        "XLM-R large, zero-shot": "shown",
        "XLM-R large, translate-train-all": "published: translate-train-all",
        "XLM-R XL, translate-train-all": "published: translate-train-all",
        "XLM-R XXL, translate-train-all": "published: translate-train-all",
    }
    large = found.published[1].differences["accuracy"]
    assert large[MEAN]["A"] == pytest.approx(0.8 - 0.809)
    assert large["sw"]["A"] == pytest.approx(0.8 - 0.739)
    assert len(large) == 16


def test_translate_train_stands_beside_translate_train(tmp_path: Path) -> None:
    found = shown(part(xnli(tmp_path, ALL, train_languages=ALL, training={"XNLI": ALL})))
    assert found["XLM-R XXL, translate-train-all"] == "shown"
    assert found["XLM-R large, zero-shot"] == "published: zero-shot"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"n": 60}, "n differs: en 60, official 5,010"),
        ({"stand_ins": ["CAD-NLI"]}, "stand-in data"),
        ({"limit": 10}, "data.limit=10"),
        ({"split": "validation"}, "validation split"),
        ({"select_split": "validation", "select_languages": ["en", "de"]}, "published: zero-shot"),
        ({"train_languages": ["de"]}, "published: zero-shot"),
        ({"training": {"XNLI": ["en"], "ANLI": ["en"]}}, "trained on XNLI, ANLI"),
    ],
)
def test_what_is_not_the_same_says_why(tmp_path: Path, changes: dict, reason: str) -> None:
    assert shown(part(xnli(tmp_path, ALL, **changes)))["XLM-R large, zero-shot"] == reason


def test_fewer_languages_hide_the_mean_but_not_the_languages(tmp_path: Path) -> None:
    found = part(xnli(tmp_path, ["en", "sw"]))
    mean_only, by_language = found.published[:2]
    assert mean_only.differences == {} and mean_only.refused == {"A": "2 of 15 languages"}
    assert set(by_language.differences["accuracy"]) == {"en", "sw"}


def test_codes_of_other_data_sets_meet(tmp_path: Path) -> None:
    codes = ["ara", "cmn", "swh"]
    guesses = {code: ([(0, 0)] * 10, [0] * 10) for code in codes}
    write_run(tmp_path, guesses, dataset="Tatoeba", names=["accuracy_backward"])
    found = part(tmp_path)
    assert found.test_set is not None
    assert found.test_set.own_codes(found.groups[0]) == {"ar": "ara", "sw": "swh", "zh": "cmn"}
