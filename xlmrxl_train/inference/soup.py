"""What an average says of itself: how its parts came about, and its scores beside theirs."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from xlmrxl_train.data.languages import language
from xlmrxl_train.evaluation.comparison.folding import fold
from xlmrxl_train.evaluation.comparison.layout import Page, Section, Table, interval_text, signed
from xlmrxl_train.evaluation.comparison.pairing import PairedTest, paired_tests
from xlmrxl_train.evaluation.comparison.reading import FinishedRun
from xlmrxl_train.evaluation.numbers import number
from xlmrxl_train.evaluation.protocol import Protocol

_OF_ALL = ("train_languages", "translated", "select_languages", "stand_ins", "parents")


def merged(protocols: Sequence[Protocol]) -> Protocol:
    """Return the protocol of an average: whatever any part was trained on or selected with, it was as well."""
    first = protocols[0]
    together: dict[str, Any] = {name: _union([getattr(each, name) for each in protocols]) for name in _OF_ALL}
    training: dict[str, list[str]] = {}
    for each in protocols:
        for name, codes in each.training.items():
            training[name] = _union([training.get(name, []), codes])
    shots = {code: values for each in protocols for code, values in each.shots.items()}
    select = next((each.select_split for each in protocols if each.select_split), None)
    assert {*together} <= {entry.name for entry in fields(Protocol)}
    return replace(
        first,
        recipe=f"{first.recipe}, average of {len(protocols)}",
        training=training,
        shots=shots,
        select_split=select,
        tuning="; ".join(_union([[each.tuning] for each in protocols if each.tuning])),
        steps=sum(each.steps for each in protocols),
        tokens=sum(each.tokens for each in protocols),
        **together,
    )


def _union(lists: Sequence[list[Any]]) -> list[Any]:
    found: list[Any] = []
    for values in lists:
        found += [value for value in values if value not in found]
    return found


def soup_page(soup: FinishedRun, parts: Sequence[FinishedRun], others: str = "its parts") -> Page:
    """Return the scores of an average beside those of its parts, or of what `others` says, one row per language."""
    groups, metric = fold(parts), soup.metrics[0]
    tests: dict[str | None, PairedTest] = {}
    if len(groups) == 1:
        tests = {test.language: test for test in paired_tests(fold([soup])[0], groups[0]) if test.metric == metric}
    other = others if len(parts) == 1 else "the parts' mean"
    table = Table(
        title=f"{metric} of the average and of {others}",
        columns=["language", "", "average", f"minus {other}", "95 % interval", *(run.folder.name for run in parts)],
        text_columns=2,
    )
    for code in soup.languages:
        scores = [run.languages[code].values[metric] if code in run.languages else None for run in parts]
        cells = [soup.languages[code].values[metric], *scores]
        table.add(code, language(code).name, *_row(metric, cells, tests.get(code)))
    means = [run.averages[metric]["mean"] for run in (soup, *parts)]
    table.add("mean", "", *_row(metric, means, tests.get(None)), strong=True)
    table.notes.append(
        "Interval: paired bootstrap over the same examples, and over the parts."
        if tests
        else "No interval: the parts differ in more than their seed."
    )
    different = [str(run.folder) for run in parts if {code: score.n for code, score in run.languages.items()}
                 != {code: score.n for code, score in soup.languages.items()}]  # fmt: skip
    section = Section(title=f"{soup.dataset}, {soup.split} split", tables=[table])
    if different:
        section.warnings.append(f"Other examples were scored in {', '.join(different)}.")
    return Page(title=f"An average beside {others}", sections=[section])


def _row(metric: str, scores: Sequence[float | None], test: PairedTest | None) -> list[str]:
    soup, *parts = scores
    known = [score for score in parts if score is not None]
    gap = soup - sum(known) / len(known) if known and soup is not None else None
    return [
        number(metric, soup),
        "-" if gap is None else signed(metric, gap),
        "-" if test is None or test.interval is None else interval_text(metric, test.interval),
        *(number(metric, score) for score in parts),
    ]
