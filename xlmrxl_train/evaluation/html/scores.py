"""The table of scores: a row per language, with what it may be sorted and grouped by."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from xlmrxl_train import metrics
from xlmrxl_train.data.languages import language as describe
from xlmrxl_train.evaluation.comparison.comparing import Part
from xlmrxl_train.evaluation.comparison.folding import Group, Spread
from xlmrxl_train.evaluation.comparison.layout import interval_text, score_text
from xlmrxl_train.evaluation.numbers import number

_SIZES = ((1, "below 1 GiB"), (10, "1 to 10 GiB"), (50, "10 to 50 GiB"), (float("inf"), "50 GiB and more"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A text, and the number to sort by where it is not the text itself."""

    text: str
    value: float | None = None
    bounds: tuple[float, float, float] | None = None  # interval and score on the scale of the column, 0 to 1


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageRow:
    """A language."""

    code: str
    name: str
    script: str
    family: str
    size: str  # class of its size in pre-training
    trained: bool
    cells: list[Cell]


@dataclass(kw_only=True, slots=True)
class ScoreTable:
    """Languages and averages by groups and metrics."""

    columns: list[tuple[str, str]]  # name; what a mean of its values is multiplied by to be shown, "": there is no mean
    rows: list[LanguageRow] = field(default_factory=list)
    averages: list[tuple[str, list[Cell]]] = field(default_factory=list)


def score_table(part: Part) -> ScoreTable:
    """Return every metric of one group, or the first metric of several; intervals of the first metric."""
    several = len(part.groups) > 1
    shown = [(group, metric) for group in part.groups for metric in (part.metrics[:1] if several else part.metrics)]
    head = part.metrics[0]
    table = ScoreTable(columns=[])
    for group, metric in shown:
        before = f"{group.label}: " if several else ""
        table.columns.append((f"{before}{metric}", "100" if is_share(metric) else "1"))
        if metric == head:
            table.columns.append((f"{before}95 % interval", ""))
    table.columns += [("examples", ""), ("GiB in pre-training", "")]
    for code in part.languages:
        entry = describe(code)
        counts = dict.fromkeys(group.n[code] for group in part.groups if code in group.n)
        cells = []
        for group, metric in shown:
            cells += _cells(metric, group.languages.get(code, {}).get(metric), head)
        cells.append(Cell(text=" / ".join(f"{n:,}" for n in counts), value=next(iter(counts))))
        cells.append(Cell(text=_gib(entry.pretraining_gib, entry.in_pretraining), value=entry.pretraining_gib))
        table.rows.append(
            LanguageRow(
                code=code,
                name=entry.name,
                script=entry.script,
                family=entry.family,
                size=_size(entry.pretraining_gib, entry.in_pretraining),
                trained=all(code in group.first.train_languages for group in part.groups),
                cells=cells,
            )
        )
    names = dict.fromkeys(name for group in part.groups for name in group.averages[head])
    for name in names:
        cells = []
        for group, metric in shown:
            cells += _cells(metric, group.averages[metric].get(name), head)
        table.averages.append((name.replace("_", " "), [*cells, Cell(text=""), Cell(text="")]))
    return table


def tiles(group: Group, metric: str) -> list[tuple[str, str, str]]:
    """Return the few numbers that people look for first: what, how much, and beside it."""
    found = []
    for name, spread in group.averages[metric].items():
        if spread is not None:
            interval = interval_text(metric, spread.interval)
            found.append((name.replace("_", " "), score_text(metric, spread), f"95 %: {interval}" if interval else ""))
    best, worst = extremes({code: scores[metric].mean for code, scores in group.languages.items()}, metric)
    for what, code in (("highest", best), ("lowest", worst)):
        name = describe(code).name
        found.append((f"best: {name}" if what == "highest" else f"worst: {name}",
                      score_text(metric, group.languages[code][metric]), ""))  # fmt: skip
    return found


def is_share(metric: str) -> bool:
    """Whether a metric is written in percent."""
    return number(metric, 1.0) == "100.0"


def extremes(scores: dict[str, float], metric: str) -> Sequence[str]:
    """Return the languages with the best and the worst score."""
    ordered = sorted(scores, key=lambda code: scores[code], reverse=metrics.load(metric).HIGHER_IS_BETTER)
    return ordered[0], ordered[-1]


def _cells(metric: str, spread: Spread | None, head: str) -> list[Cell]:
    if spread is None:
        empty = Cell(text="-")
        return [empty, Cell(text="")] if metric == head else [empty]
    score = Cell(text=score_text(metric, spread), value=spread.mean)
    if metric != head:
        return [score]
    if spread.interval is None:
        return [score, Cell(text="")]
    low, high = spread.interval
    on_scale = is_share(metric) and low >= 0 and high <= 1
    return [
        score,
        Cell(
            text=interval_text(metric, spread.interval),
            value=low,
            bounds=(low, high, spread.mean) if on_scale else None,
        ),
    ]


def _gib(size: float | None, known: bool) -> str:
    return f"{size:g}" if size is not None else "not known" if known else "none"


def _size(gib: float | None, known: bool) -> str:
    if gib is None:
        return "size not known" if known else "not in pre-training"
    return next(name for bound, name in _SIZES if gib < bound)
