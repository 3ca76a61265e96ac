"""The paired bootstrap, and when there is none."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.comparison.folders import right, write_run
from xlmrxl_train.errors import DataError
from xlmrxl_train.evaluation.bootstrap import bounds, resampled_mean, two_sided_p
from xlmrxl_train.evaluation.comparison.folding import fold
from xlmrxl_train.evaluation.comparison.pairing import PairedTest, paired_tests
from xlmrxl_train.evaluation.comparison.reading import find_runs
from xlmrxl_train.metrics import accuracy


def paired(folder: Path) -> dict[tuple[str | None, str], PairedTest]:
    first, second = fold(find_runs([str(folder / "a"), str(folder / "b")]).finished)
    return {(test.language, test.metric): test for test in paired_tests(first, second)}


def test_a_clear_difference_is_one(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"en": right(0.9, 100), "de": right(0.8, 100)}, names=("accuracy", "macro_f1"))
    write_run(tmp_path / "b", {"en": right(0.6, 100), "de": right(0.6, 100)}, names=("accuracy", "macro_f1"))
    tests = paired(tmp_path)
    english = tests["en", "accuracy"]
    assert english.difference == pytest.approx(0.3) and english.n == 100
    assert english.interval is not None and 0.2 < english.interval[0] < 0.3 < english.interval[1] < 0.4
    assert english.p == pytest.approx(2 / 1001)
    mean = tests[None, "accuracy"]
    assert mean.difference == pytest.approx(0.25) and mean.n == 2 and mean.p == pytest.approx(2 / 1001)
    assert (None, "macro_f1") in tests


def test_pairing_sees_what_separate_intervals_hide(tmp_path: Path) -> None:
    """b is right wherever a is, and on 6 more examples: a small difference, but never the other way."""
    write_run(tmp_path / "a", {"en": right(0.50, 200)})
    write_run(tmp_path / "b", {"en": right(0.53, 200)})
    test = paired(tmp_path)["en", "accuracy"]
    assert test.difference == pytest.approx(-0.03)
    assert test.interval is not None and test.interval[1] < 0 and test.p is not None and test.p < 0.02


def test_equal_runs_do_not_differ(tmp_path: Path) -> None:
    for name in "ab":
        write_run(tmp_path / name, {"en": right(0.5, 40)})
    test = paired(tmp_path)["en", "accuracy"]
    assert (test.difference, test.interval, test.p) == (0, (0, 0), 1)


def test_seeds_widen_the_interval(tmp_path: Path) -> None:
    """Groups whose seeds vary more than they differ are not told apart."""
    for seed, share in ((1, 0.4), (2, 0.9)):
        write_run(tmp_path / "a" / str(seed), {"en": right(share, 100)}, seed=seed)
        write_run(
            tmp_path / "b" / str(seed),
            {"en": right(share - 0.1, 100)},
            seed=seed,
            overrides=["recipe=demo", "optimizer.lr=2e-3"],
        )
    test = paired(tmp_path)["en", "accuracy"]
    assert test.difference == pytest.approx(0.1)
    assert test.interval is not None and test.interval[0] < 0 and test.p is not None and test.p > 0.05


def test_examples_in_another_order_are_paired_by_id(tmp_path: Path) -> None:
    predicted, truth = right(0.5, 40)
    ids = [str(number) for number in range(40)]
    write_run(tmp_path / "a", {"en": (predicted, truth)}, ids={"en": ids})
    write_run(tmp_path / "b", {"en": (predicted[::-1], truth)}, ids={"en": ids[::-1]})
    test = paired(tmp_path)["en", "accuracy"]
    assert (test.difference, test.interval) == (0, (0, 0))


def test_what_cannot_be_paired_says_why(tmp_path: Path) -> None:
    ten = right(0.5, 10)
    first = {"en": ten, "de": ten, "fr": ten, "es": ten, "th": ten, "zh": ten}
    write_run(tmp_path / "a", first)
    other = first | {"de": right(0.5, 12), "es": (ten[0], [1, *ten[1][1:]])}
    names = [*map(str, range(9)), "x"]
    write_run(tmp_path / "b", other, ids={"fr": names, "zh": ["0"] * 10})
    (tmp_path / "b" / "predictions" / "th.jsonl").unlink()
    reasons = {language: test.reason for (language, _), test in paired(tmp_path).items()}
    assert reasons == {
        "en": None,
        "de": "n differs: 10 and 12",
        "fr": "ids differ: '9' is in one only",
        "es": "the truth about example '0' differs",
        "th": f"no predictions in {tmp_path / 'b'}",
        "zh": "ids differ: '1' is in one only",
        None: "not computable in de, fr, es ...",
    }


def test_ids_that_occur_twice_cannot_be_ordered(tmp_path: Path) -> None:
    for name, ids in (("a", ["x", "x", "y"]), ("b", ["x", "y", "x"])):
        write_run(tmp_path / name, {"en": ([0, 1, 0], [0, 0, 0])}, ids={"en": ids})
    assert paired(tmp_path)["en", "accuracy"].reason == "ids occur more than once"


def test_runs_without_a_common_language(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"en": right(0.5, 10)})
    write_run(tmp_path / "b", {"de": right(0.5, 10)})
    assert paired(tmp_path)[None, "accuracy"].reason == "they have no language in common"


def test_one_sample_holds_the_same_examples_for_all() -> None:
    rows = np.arange(30.0).reshape(-1, 1) % 2
    alone = resampled_mean([rows], accuracy.fold, 50)
    assert (resampled_mean([rows, rows], accuracy.fold, 50, side=1) == alone).all()
    assert not (resampled_mean([rows[:20]], accuracy.fold, 50) == alone).all()


def test_p_of_differences_worked_by_hand() -> None:
    assert two_sided_p(np.array([1.0] * 9 + [-1.0])) == pytest.approx(2 * 2 / 11)
    assert two_sided_p(np.zeros(10)) == 1
    assert bounds([1.0] * 100) == (1, 1)


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    for name in "ab":
        write_run(tmp_path / name, {"en": right(0.5, 10)})
    path = tmp_path / "b" / "predictions" / "en.jsonl"
    whole = path.read_text()
    for damage, message in (
        (whole + "{", r"en\.jsonl:11: a line must hold id and statistics of accuracy, got Expecting"),
        (whole.replace('"statistics"', '"numbers"', 1), r"en\.jsonl:1: .* got no 'statistics'\. Restore"),
        (whole.replace("[1.0]", "[1.0, 2.0]", 1), r"en\.jsonl:10: a line must hold"),
        (whole + whole, r"en\.jsonl must hold the 10 examples that report\.json counts, got 20\. Restore it"),
        (json.dumps([1]) + "\n", r"en\.jsonl:1: a line must hold"),
    ):
        path.write_text(damage)
        with pytest.raises(DataError, match=message):
            paired(tmp_path)
