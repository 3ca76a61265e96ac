"""Everything that a report of several runs says, as plain data: the text, file and HTML reports are made of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from xlmrxl_train.errors import RunError
from xlmrxl_train.evaluation.comparison.folding import Group, differences, fold
from xlmrxl_train.evaluation.comparison.pairing import PairedTest, paired_tests
from xlmrxl_train.evaluation.comparison.published import PublishedColumn, PublishedSet, set_of
from xlmrxl_train.evaluation.comparison.reading import FinishedRun, Found
from xlmrxl_train.evaluation.comparison.xtreme import XtremeTable, is_xtreme, xtreme_table

MEAN = "mean"  # of a published set's languages, among their codes


@dataclass(frozen=True, kw_only=True, slots=True)
class Beside:
    """One published column, and the groups it may stand beside."""

    column: PublishedColumn
    differences: dict[str, dict[str, dict[str, float]]]  # metric -> language or MEAN -> group -> ours minus published
    refused: dict[str, str]  # group -> why the column, or a part of it, does not stand beside it


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """The runs of one data set and split."""

    dataset: str
    split: str
    groups: list[Group]
    differing: dict[str, list[Any]]  # setting -> value of each group
    paired: list[PairedTest] = field(default_factory=list)  # first group minus second
    test_set: PublishedSet | None = None
    published: list[Beside] = field(default_factory=list)

    @property
    def metrics(self) -> list[str]:
        """Return the metrics that every group has, the one that selects checkpoints first."""
        first, *others = (group.first.metrics for group in self.groups)
        return [metric for metric in first if all(metric in each for each in others)]

    @property
    def languages(self) -> list[str]:
        """Return the languages that any group scored."""
        return list(dict.fromkeys(code for group in self.groups for code in group.n))

    @property
    def other_examples(self) -> list[str]:
        """Return the languages in which groups scored another number of examples."""
        return [code for code in self.languages if len({group.n[code] for group in self.groups if code in group.n}) > 1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A report of several runs."""

    parts: list[Part]
    xtreme: XtremeTable | None
    left_out: list[str]  # runs that are not finished, one line each


def compare(found: Found, *, paired: bool, paired_if_two: bool = False) -> Comparison:
    """Fold seeds, put what remains side by side, and test it in pairs if asked to.

    Args:
        found: The runs.
        paired: Test in pairs, and refuse what are not two.
        paired_if_two: Test in pairs where there are two.

    Raises:
        RunError: No run is finished, data sets are mixed, a pair is not a pair, or seeds scored different data.
        DataError: A file of predictions is damaged.
    """
    runs = found.finished
    if not runs:
        raise RunError("\n".join(found.unfinished))
    groups = fold(runs)
    by_data: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        by_data.setdefault((group.first.dataset, group.first.split), []).append(group)
    of_xtreme = is_xtreme(groups)
    if len(by_data) > 1 and not of_xtreme:
        raise RunError(_mixed(runs))
    if paired:
        _check_pairs(list(by_data.values()))
    parts = [
        _part(dataset, split, members, paired=(paired or paired_if_two) and len(members) == 2)
        for (dataset, split), members in by_data.items()
    ]
    return Comparison(parts=parts, xtreme=xtreme_table(groups) if of_xtreme else None, left_out=list(found.unfinished))


def _part(dataset: str, split: str, groups: list[Group], *, paired: bool) -> Part:
    test_set = set_of(dataset)
    return Part(
        dataset=dataset,
        split=split,
        groups=groups,
        differing=differences(groups),
        paired=paired_tests(*groups) if paired else [],
        test_set=test_set,
        published=[_beside(test_set, column, groups) for column in test_set.columns] if test_set else [],
    )


def _beside(test_set: PublishedSet, column: PublishedColumn, groups: Sequence[Group]) -> Beside:
    found: dict[str, dict[str, dict[str, float]]] = {}
    refused: dict[str, str] = {}
    for group in groups:
        otherwise = test_set.trained_otherwise(group, column)
        if reason := otherwise or test_set.caveat(group):
            refused[group.label] = reason
        if otherwise:
            continue
        for metric in (metric for metric in column.mean if metric in group.first.metrics):
            of_metric = found.setdefault(metric, {})
            own = test_set.own_mean(group, metric)
            if own is not None and test_set.caveat(group) is None:
                of_metric.setdefault(MEAN, {})[group.label] = own.mean - column.mean[metric]
            for language, value in column.values.get(metric, {}).items():
                if test_set.caveat_of(group, language) is None:
                    score = group.languages[test_set.own_codes(group)[language]][metric].mean
                    of_metric.setdefault(language, {})[group.label] = score - value
    return Beside(column=column, differences={key: value for key, value in found.items() if value}, refused=refused)


def _mixed(runs: Sequence[FinishedRun]) -> str:
    first: dict[tuple[str, str], FinishedRun] = {}
    for run in runs:
        first.setdefault((run.dataset, run.split), run)
    listed = ", ".join(f"{dataset} {split} ({run.folder})" for (dataset, split), run in list(first.items())[:4])
    more = f" and {len(first) - 4} more" if len(first) > 4 else ""
    return (
        f"Runs must be of one data set and split, or of XTREME's tasks, got {listed}{more}. "
        "Report each data set by itself."
    )


def _check_pairs(parts: Sequence[Sequence[Group]]) -> None:
    largest = max(parts, key=len)
    if len(largest) != 2:
        listed = ", ".join(f"{group.label} ({group.first.folder})" for group in largest[:5])
        raise RunError(
            f"--compare tests two runs, or two groups of seeds, against each other, got {len(largest)} of "
            f"{largest[0].first.dataset}: {listed}. Give the folders of two."
        )
