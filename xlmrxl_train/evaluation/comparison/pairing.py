"""The paired bootstrap between two runs, or two groups of seeds: is one better than the other on these examples?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xlmrxl_train import metrics
from xlmrxl_train.evaluation.bootstrap import bounds, resampled_mean, two_sided_p
from xlmrxl_train.evaluation.comparison.folding import RESAMPLES, Group
from xlmrxl_train.evaluation.comparison.reading import Predictions


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedTest:
    """The difference of two groups in one language and metric, or why it cannot be computed."""

    language: str | None  # None: the mean over the languages that both have
    metric: str
    n: int | None = None  # examples; of the mean: languages
    difference: float | None = None  # first minus second
    interval: tuple[float, float] | None = None  # 95 %
    p: float | None = None  # two-sided
    reason: str | None = None  # why there is no test


def paired_tests(first: Group, second: Group) -> list[PairedTest]:
    """Compare two groups on the examples of each language, and in the mean over languages.

    Examples are drawn with replacement, the same for both groups; where a group has several seeds, its runs are drawn
    too. The mean is over the languages that both groups have; if one of those cannot be tested, neither can the mean.

    Source: Koehn 2004, Statistical Significance Tests for Machine Translation Evaluation, section 4 (the pairing);
        Efron and Tibshirani, An Introduction to the Bootstrap (1993), sections 13.3 and 15.4 (interval and p).
    """
    shared = [metric for metric in first.first.metrics if metric in second.first.metrics]
    languages = [code for code in first.n if code in second.n]
    tests: list[PairedTest] = []
    samples: dict[str, list[np.ndarray]] = {metric: [] for metric in shared}
    failed: list[str] = []
    for code in languages:
        aligned = _aligned(first, second, code)
        if isinstance(aligned, str):
            failed.append(code)
            tests += [PairedTest(language=code, metric=metric, reason=aligned) for metric in shared]
            continue
        for metric in shared:
            resampled = _resampled_difference(aligned, metric)
            samples[metric].append(resampled)
            tests.append(_test(first, second, code, metric, first.n[code], resampled))
    for metric in shared:
        if not languages:
            tests.append(PairedTest(language=None, metric=metric, reason="they have no language in common"))
        elif failed:
            reason = f"not computable in {', '.join(failed[:3])}{' ...' if len(failed) > 3 else ''}"
            tests.append(PairedTest(language=None, metric=metric, reason=reason))
        else:
            mean = np.mean(samples[metric], axis=0)
            tests.append(_test(first, second, None, metric, len(languages), mean, languages))
    return tests


def _test(
    first: Group,
    second: Group,
    language: str | None,
    metric: str,
    n: int,
    resampled: np.ndarray,
    languages: Sequence[str] = (),
) -> PairedTest:
    codes = [language] if language is not None else list(languages)
    by_language = [first.languages[code][metric].mean - second.languages[code][metric].mean for code in codes]
    return PairedTest(
        language=language,
        metric=metric,
        n=n,
        difference=sum(by_language) / len(by_language),
        interval=bounds(resampled),
        p=two_sided_p(resampled),
    )


def _resampled_difference(aligned: tuple[list[Predictions], list[Predictions]], metric: str) -> np.ndarray:
    fold = metrics.load(metric).fold
    sides = [
        resampled_mean([item.statistics[metric] for item in predictions], fold, RESAMPLES, side=side)
        for side, predictions in enumerate(aligned)
    ]
    difference: np.ndarray = sides[0] - sides[1]
    return difference


def _aligned(first: Group, second: Group, code: str) -> tuple[list[Predictions], list[Predictions]] | str:
    """Return the predictions of both groups, examples in the same order, or why they cannot be paired."""
    if first.n[code] != second.n[code]:
        return f"n differs: {first.n[code]} and {second.n[code]}"
    sides = []
    for group in (first, second):
        predictions = group.predictions(code)
        if predictions is None:
            missing = next(run.folder for run in group.runs if run.predictions(code) is None)
            return f"no predictions in {missing}"
        sides.append(predictions)
    order = sides[0][0]
    for predictions in sides:
        for position, item in enumerate(predictions):
            same = _in_order_of(order, item)
            if isinstance(same, str):
                return same
            predictions[position] = same
    return sides[0], sides[1]


def _in_order_of(order: Predictions, item: Predictions) -> Predictions | str:
    """Return `item` with its examples in another's order, or what is different about them."""
    if item.ids != order.ids:
        place = {name: index for index, name in enumerate(item.ids)}
        unknown = [name for name in order.ids if name not in place]
        if unknown or len(place) < len(item.ids):
            return f"ids differ: {unknown[0]!r} is in one only" if unknown else "ids occur more than once"
        rows = [place[name] for name in order.ids]
        item = Predictions(
            ids=order.ids,
            references=[item.references[row] for row in rows],
            statistics={metric: table[rows] for metric, table in item.statistics.items()},
        )
    for name, truth, other in zip(order.ids, order.references, item.references, strict=True):
        if truth is not None and other is not None and truth != other:
            return f"the truth about example {name!r} differs"
    return item
