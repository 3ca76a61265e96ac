"""XTREME's table as a section: tasks with averages, and tasks by languages."""

from collections.abc import Sequence

from xlmrxl_train.evaluation.comparison.comparing import Part
from xlmrxl_train.evaluation.comparison.layout import Section, Table, score_text, signed, warnings_of
from xlmrxl_train.evaluation.comparison.published import PublishedSet, published_sets
from xlmrxl_train.evaluation.comparison.xtreme import (
    CATEGORIES,
    NOT_RUN,
    PUBLISHED_MODELS,
    OwnCell,
    PublishedCell,
    Row,
    XtremeTable,
)
from xlmrxl_train.evaluation.numbers import number

_SHARE = "accuracy"  # all scores of the table are shares


def xtreme_section(table: XtremeTable, parts: Sequence[Part]) -> Section:
    """Return the section with XTREME's table."""
    section = Section(title="XTREME", warnings=_settings(parts))
    section.tables.append(_tasks(table))
    section.tables += [_languages(model, parts, alone=len(table.models) == 1) for model in table.models]
    return section


def _settings(parts: Sequence[Part]) -> list[str]:
    """Return what stood in for official data, task by task, and which runs are not zero-shot."""
    found = []
    for part in parts:
        if warnings := warnings_of(part.groups):
            found.append(f"{part.dataset}: {' '.join(warnings)}")
        for group in part.groups:
            if group.first.train_languages and not group.setting.startswith("zero-shot"):
                found.append(f"{part.dataset} ({group.first.model}): {group.setting}.")
    return found


def _tasks(table: XtremeTable) -> Table:
    page = Table(
        title="Tasks and averages",
        columns=["task", "score", *table.models, *PUBLISHED_MODELS],
        text_columns=2,
        notes=[
            "A task's score is the mean over XTREME's languages; of question answering the mean of F1 and exact match "
            "(in brackets: F1 / exact match). A category's average wants all its tasks (google-research/xtreme, "
            "evaluate.py).",
            "After a published score, in brackets: ours minus it. It is there only where languages, split, number of "
            "examples and way of training are the same.",
        ],
    )
    for row in table.rows:
        own = [_own(row.own[model]) for model in table.models]
        published = [_published(row.published[model], table.models) for model in PUBLISHED_MODELS]
        page.add(row.name, row.metric, *own, *published, strong=row.task is None)
    page.notes += [note for row in table.rows for note in _caveats(row, table.models)]
    sources = dict.fromkeys(
        f"{model}, {row.name}: {cell.source}."
        for row in table.rows
        for model, cell in row.published.items()
        if cell.source and cell.score is not None
    )
    page.notes += list(sources)
    return page


def _own(cell: OwnCell) -> str:
    if cell.score is None:
        return cell.reason or NOT_RUN
    text = score_text(_SHARE, cell.score)
    if cell.by_metric:
        text += f" ({' / '.join(number(_SHARE, value) for value in cell.by_metric.values())})"
    return f"{text}*" if cell.caveat else text


def _published(cell: PublishedCell, models: Sequence[str]) -> str:
    if cell.score is None:
        return cell.reason or "-"
    gaps = [signed(_SHARE, cell.differences[model]) if model in cell.differences else "-" for model in models]
    return f"{number(_SHARE, cell.score)} ({', '.join(gaps)})" if cell.differences else number(_SHARE, cell.score)


def _caveats(row: Row, models: Sequence[str]) -> list[str]:
    several = len(models) > 1
    return [
        f"* {row.name}{f' with {model}' if several else ''}: {row.own[model].caveat}."
        for model in models
        if row.own[model].score is not None and row.own[model].caveat
    ]


def _languages(model: str, parts: Sequence[Part], *, alone: bool) -> Table:
    """Return languages by tasks, for one model."""
    tasks = [published_sets()[task] for names in CATEGORIES.values() for task in names]
    scores = {task.task: _by_language(model, task, parts) for task in tasks}
    languages = sorted({language for task in tasks for language in task.languages})
    page = Table(
        title="Languages by tasks" + ("" if alone else f": {model}"),
        columns=["language", *(task.name for task in tasks)],
        notes=["Empty: XTREME's task does not have the language."],
    )
    for language in languages:
        cells = []
        for task in tasks:
            found = scores[task.task]
            cells.append(found.get(language, NOT_RUN) if language in task.languages else "")
        page.add(language, *cells)
    return page


def _by_language(model: str, task: PublishedSet, parts: Sequence[Part]) -> dict[str, str]:
    """Return the task's score in each of its languages that the model was scored in."""
    found: dict[str, str] = {}
    for part in parts:
        if part.test_set is None or part.test_set.task != task.task:
            continue
        for group in part.groups:
            if group.first.model != model or any(metric not in group.first.metrics for metric in task.score):
                continue
            for language, code in task.own_codes(group).items():
                means = [group.languages[code][metric].mean for metric in task.score]
                found[language] = number(_SHARE, sum(means) / len(means))
    return found
