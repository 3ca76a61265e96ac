"""What a page is made of, and how scores are written in it."""

import json
from dataclasses import dataclass, field

from xlmrxl_train.evaluation.comparison.folding import Group, Spread
from xlmrxl_train.evaluation.numbers import number


@dataclass(kw_only=True, slots=True)
class Table:
    """Rows of text under a title."""

    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    text_columns: int = 1  # so many columns from the left hold words, the others numbers
    strong: set[int] = field(default_factory=set)  # rows that hold averages
    notes: list[str] = field(default_factory=list)

    def add(self, *cells: str, strong: bool = False) -> None:
        """Append a row."""
        if strong:
            self.strong.add(len(self.rows))
        self.rows.append(list(cells))


@dataclass(kw_only=True, slots=True)
class Section:
    """A heading, what must be known before the numbers are read, and tables."""

    title: str
    warnings: list[str] = field(default_factory=list)  # printed strongly
    lines: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


@dataclass(kw_only=True, slots=True)
class Page:
    """A report."""

    title: str
    sections: list[Section]


def score_text(metric: str, spread: Spread | None) -> str:
    """Return "68.2", or "68.2 ± 1.1" over several seeds."""
    if spread is None:
        return "-"
    text = number(metric, spread.mean)
    return text if spread.deviation is None else f"{text} ± {number(metric, spread.deviation)}"


def range_text(metric: str, spread: Spread) -> str:
    """Return the lowest and the highest score of the seeds."""
    return f"{number(metric, min(spread.values))} to {number(metric, max(spread.values))}"


def interval_text(metric: str, bounds: tuple[float, float] | None) -> str:
    """Return a 95 % interval; nothing where there is none."""
    return "" if bounds is None else f"{number(metric, bounds[0])} to {number(metric, bounds[1])}"


def signed(metric: str, difference: float) -> str:
    """Return a difference with its sign."""
    text = number(metric, abs(difference))
    return f"{'-' if difference < 0 else '+'}{text}"


def setting_text(value: object) -> str:
    """Return a setting's value as a table shows it."""
    text = "absent" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def warnings_of(groups: list[Group]) -> list[str]:
    """Return what keeps scores from being compared with others: stand-ins and limits, with the groups they concern."""
    found: dict[str, list[str]] = {}
    for group in groups:
        for text in group.stand_ins:
            found.setdefault(f"Stand-in data, not comparable with published scores: {text}", []).append(group.label)
        for limit in group.limits:
            text = f"data.limit={limit}: only the first examples of each split and language"
            found.setdefault(text, []).append(group.label)
    if len(groups) == 1:
        return [f"{text}." for text in found]
    return [f"{text} ({', '.join(dict.fromkeys(labels))})." for text, labels in found.items()]
