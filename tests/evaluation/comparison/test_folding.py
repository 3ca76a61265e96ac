"""Seeds folded into one, and what stays apart."""

import statistics
from pathlib import Path

import pytest

from tests.evaluation.comparison.folders import right, write_run
from xlmrxl_train.errors import RunError
from xlmrxl_train.evaluation.comparison.folding import differences, fold
from xlmrxl_train.evaluation.comparison.reading import find_runs


def folded(folder: Path):
    return fold(find_runs([str(folder)]).finished)


def test_seeds_of_one_configuration_are_folded(tmp_path: Path) -> None:
    shares = {1: (0.8, 0.5), 2: (0.9, 0.6), 3: (0.7, 0.7)}
    for seed, (en, de) in shares.items():
        write_run(tmp_path / f"seed-{seed}", {"en": right(en, 50), "de": right(de, 50)}, seed=seed)
    (group,) = folded(tmp_path)
    assert group.seeds == [1, 2, 3]
    german = group.languages["de"]["accuracy"]
    assert german.mean == pytest.approx(0.6)
    assert german.deviation == pytest.approx(statistics.stdev([0.5, 0.6, 0.7])) == pytest.approx(0.1)
    assert (min(german.values), max(german.values)) == (0.5, 0.7)
    assert german.interval is not None and german.interval[0] < 0.6 < german.interval[1]
    gap = group.averages["accuracy"]["transfer_gap"]
    assert (
        gap is not None
        and gap.mean == pytest.approx(0.2)
        and gap.deviation == pytest.approx(statistics.stdev([0.3, 0.3, 0.0]))
    )
    mean = group.averages["accuracy"]["mean"]
    assert mean is not None and mean.interval is not None and mean.interval[0] < 0.7 < mean.interval[1]


def test_place_speed_and_first_stage_of_a_seed_do_not_part_runs(tmp_path: Path) -> None:
    for seed in (1, 2):
        words = ["recipe=demo", f"data.root={tmp_path / str(seed)}", f"model.path=runs/first/seed-{seed}"]
        words += ["strategy=ddp"] if seed == 2 else ["evaluate.bootstrap=10"]
        write_run(tmp_path / f"seed-{seed}", {"en": right(0.5, 10)}, seed=seed, overrides=words)
    assert [group.seeds for group in folded(tmp_path)] == [[1, 2]]


def test_one_first_stage_may_serve_every_seed(tmp_path: Path) -> None:
    for lr in ("1e-3", "2e-3"):
        for seed in (1, 2, 3):
            words = ["recipe=demo", "model.path=runs/first/seed-1", f"optimizer.lr={lr}"]
            write_run(tmp_path / lr / f"seed-{seed}", {"en": right(0.5, 10)}, seed=seed, overrides=words)
    groups = fold(find_runs([str(tmp_path)]).finished)
    assert [group.seeds for group in groups] == [[1, 2, 3], [1, 2, 3]]
    assert list(differences(groups)) == ["optimizer.lr"]
    groups = fold(find_runs([str(tmp_path / "1e-3/seed-1"), str(tmp_path / "2e-3/seed-2")]).finished)
    assert list(differences(groups)) == ["optimizer.lr"]


def test_other_settings_stand_apart_and_are_listed(tmp_path: Path) -> None:
    for lr in ("1e-3", "2e-3"):
        for seed in (1, 2):
            words = ["recipe=demo", f"optimizer.lr={lr}"]
            write_run(tmp_path / f"{lr}-{seed}", {"en": right(0.5, 10)}, seed=seed, overrides=words)
    groups = folded(tmp_path)
    assert [(group.label, group.seeds) for group in groups] == [("A", [1, 2]), ("B", [1, 2])]
    assert differences(groups) == {"optimizer.lr": [0.001, 0.002]}


def test_one_seed_twice_stands_side_by_side(tmp_path: Path) -> None:
    """What changes no result does not part seeds, but it is what a person compares when a seed is there twice."""
    for name in ("single", "ddp"):
        for seed in (1, 2):
            words = ["recipe=demo", f"strategy={name}"]
            write_run(tmp_path / f"{name}-{seed}", {"en": right(0.5, 10)}, seed=seed, overrides=words)
    groups = folded(tmp_path)
    assert sorted(group.first.settings["strategy.name"] for group in groups) == ["ddp", "single"]
    assert [group.seeds for group in groups] == [[1, 2], [1, 2]]
    assert "strategy.name" in differences(groups)


def test_the_same_run_twice_stays_two(tmp_path: Path) -> None:
    for name in "ab":
        write_run(tmp_path / name, {"en": right(0.5, 10)})
    assert [group.seeds for group in folded(tmp_path)] == [[1], [1]]


def test_seeds_that_scored_other_data_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "seed-1", {"en": right(0.5, 10)})
    write_run(tmp_path / "seed-2", {"en": right(0.5, 12)}, seed=2)
    with pytest.raises(
        RunError, match=r"seed-2 must have scored what .*seed-1 did, since only their seeds differ, got"
    ):
        folded(tmp_path)


def test_without_predictions_there_is_no_interval_of_several_seeds(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_run(tmp_path / f"seed-{seed}", {"en": right(0.5, 10)}, seed=seed, predictions=False)
    (group,) = folded(tmp_path)
    assert group.languages["en"]["accuracy"].interval is None
    mean = group.averages["accuracy"]["mean"]
    assert mean is not None and mean.interval is None


def test_zero_shot_is_said_of_a_group_only_if_every_run_is(tmp_path: Path) -> None:
    runs = {"en": right(0.5, 10), "de": right(0.5, 10)}
    write_run(tmp_path / "seed-1", runs)
    write_run(tmp_path / "seed-2", runs, seed=2, select_split="validation", select_languages=["en", "de"])
    (group,) = folded(tmp_path)
    assert group.setting == "zero-shot from en; cross-lingual, selected with labels of de"
