"""XTREME's table: a score per task, an average per category and over the tasks, weighed as its own script does.

A task's score is the mean over its languages; of question answering, the mean of F1 and exact match. A category's
average is the mean over its tasks, the whole benchmark's the mean over all nine, and each is there only if every task
of it is.

Source: google-research/xtreme, evaluate.py @ 091824888a60 (GROUP2TASK, TASK2LANGS, `evaluate`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from xlmrxl_train.errors import RunError
from xlmrxl_train.evaluation.comparison.folding import Group, Spread
from xlmrxl_train.evaluation.comparison.published import (
    NOTHING,
    ZERO_SHOT,
    PublishedColumn,
    PublishedSet,
    published_sets,
    set_of,
)

CATEGORIES = {
    "classification": ("xnli", "paws_x"),
    "structured prediction": ("udpos", "panx"),
    "question answering": ("xquad", "mlqa", "tydiqa"),
    "retrieval": ("bucc", "tatoeba"),
}
PUBLISHED_MODELS = ("XLM-R large", "XLM-R XL", "XLM-R XXL")
RECIPES = "xtreme/"  # the recipes whose runs are XTREME's
NOT_RUN, INCOMPLETE = "not run", "incomplete"


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnCell:
    """The score of one model on one task, or an average of tasks."""

    score: Spread | None = None  # None: see `reason`
    by_metric: dict[str, float] = field(default_factory=dict)  # what the score is the mean of, where it is of several
    caveat: str | None = None  # why it is not of the official data
    reason: str | None = None  # why there is no score


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedCell:
    """A published score beside ours, or why it is not there."""

    score: float | None = None
    differences: dict[str, float] = field(default_factory=dict)  # our model -> ours minus published
    reason: str | None = None
    source: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A task, a category's average or the whole benchmark's."""

    name: str
    task: str | None  # None: an average
    metric: str
    own: dict[str, OwnCell]  # our model -> cell
    published: dict[str, PublishedCell]  # published model -> cell


@dataclass(frozen=True, kw_only=True, slots=True)
class XtremeTable:
    """The whole table."""

    models: list[str]
    rows: list[Row]


def short_name(metric: str) -> str:
    """Return how the table calls a metric: squad_exact_match -> exact match."""
    return metric.removeprefix("squad_").removeprefix("mlqa_").replace("_", " ").replace("f1", "F1")


def is_xtreme(groups: Sequence[Group]) -> bool:
    """Whether these runs make an XTREME table: several of its tasks and nothing else, or recipes of its group."""
    tasks = [set_of(group.first.dataset) for group in groups]
    if any(task is None for task in tasks):
        return False
    several = len({task.task for task in tasks if task is not None}) > 1
    return several or all(str(group.first.protocol.get("recipe", "")).startswith(RECIPES) for group in groups)


def xtreme_table(groups: Sequence[Group]) -> XtremeTable:
    """Put runs into XTREME's table, one column per model.

    Raises:
        RunError: A model has runs of two configurations for one task.
    """
    placed: dict[tuple[str, str], Group] = {}
    for group in groups:
        test_set = set_of(group.first.dataset)
        assert test_set is not None
        place = (group.first.model, test_set.task)
        if place in placed:
            raise RunError(
                f"The XTREME table has one configuration per task and model, got two of {test_set.name} with "
                f"{group.first.model}: {placed[place].first.folder} and {group.first.folder}. Leave one out."
            )
        placed[place] = group
    models = list(dict.fromkeys(model for model, _ in placed))
    rows: list[Row] = []
    for category, tasks in CATEGORIES.items():
        of_tasks = [_task_row(published_sets()[task], models, placed) for task in tasks]
        rows += [*of_tasks, _average(category, of_tasks)]
    of_all = [row for row in rows if row.task]
    return XtremeTable(models=models, rows=[*rows, _average("all nine tasks", of_all), _average_of_run(models, of_all)])


def _task_row(test_set: PublishedSet, models: Sequence[str], placed: dict[tuple[str, str], Group]) -> Row:
    groups = {model: placed[model, test_set.task] for model in models if (model, test_set.task) in placed}
    own = {
        model: _own_cell(test_set, groups[model]) if model in groups else OwnCell(reason=NOT_RUN) for model in models
    }
    published = {}
    for model in PUBLISHED_MODELS:
        published[model] = _published_cell(test_set, _column_of(test_set, model), groups, own)
    return Row(
        name=test_set.name,
        task=test_set.task,
        metric=" + ".join(map(short_name, test_set.score)),
        own=own,
        published=published,
    )


def _own_cell(test_set: PublishedSet, group: Group) -> OwnCell:
    means = {metric: test_set.own_mean(group, metric) for metric in test_set.score}
    present = {metric: spread for metric, spread in means.items() if spread is not None}
    if len(present) < len(means):
        missing = ", ".join(metric for metric in means if metric not in present)
        return OwnCell(reason=f"no {missing}" if test_set.own_codes(group) else "none of its languages")
    values = [sum(parts) / len(parts) for parts in zip(*(item.values for item in present.values()), strict=True)]
    return OwnCell(
        score=Spread(values=values),
        by_metric={metric: spread.mean for metric, spread in present.items()} if len(present) > 1 else {},
        caveat=test_set.caveat(group),
    )


def _column_of(test_set: PublishedSet, model: str) -> PublishedColumn | None:
    """Return the model's column of XTREME's protocol, the benchmark's own first."""
    fitting = [
        column for column in test_set.columns if column.model == model and column.trained in (ZERO_SHOT, NOTHING)
    ]
    return min(fitting, key=lambda column: column.benchmark != "XTREME", default=None)


def _published_cell(
    test_set: PublishedSet, column: PublishedColumn | None, groups: dict[str, Group], own: dict[str, OwnCell]
) -> PublishedCell:
    if column is None:
        return PublishedCell(reason="none known")
    missing = [metric for metric in test_set.score if metric not in column.mean]
    if missing:
        return PublishedCell(reason=f"no {', '.join(map(short_name, missing))} known", source=column.source)
    if not groups:
        return PublishedCell(reason=NOT_RUN, source=column.source)
    score = sum(column.mean[metric] for metric in test_set.score) / len(test_set.score)
    found, reasons = {}, []
    for model, group in groups.items():
        cell = own[model]
        reason = cell.caveat or test_set.trained_otherwise(group, column)
        if cell.score is None or reason is not None:
            reasons.append(reason or cell.reason or "")
        else:
            found[model] = cell.score.mean - score
    if not found:
        return PublishedCell(reason=reasons[0].partition(":")[0], source=column.source)
    return PublishedCell(score=score, differences=found, source=column.source)


def _average(name: str, rows: Sequence[Row]) -> Row:
    """Return the mean over tasks, which only a model has that has run them all."""
    own: dict[str, OwnCell] = {}
    for model in rows[0].own:
        cells = [row.own[model] for row in rows]
        scores = [cell.score.mean for cell in cells if cell.score is not None]
        caveats = [row.name for row in rows if row.own[model].caveat]
        if len(scores) < len(cells):
            own[model] = OwnCell(reason=f"{len(scores)} of {len(cells)} tasks")
        else:
            caveat = f"not all of the official data ({', '.join(caveats)})" if caveats else None
            own[model] = OwnCell(score=Spread(values=[sum(scores) / len(scores)]), caveat=caveat)
    published: dict[str, PublishedCell] = {}
    for model in PUBLISHED_MODELS:
        shown = [row.published[model].score for row in rows]
        known = [score for score in shown if score is not None]
        if len(known) < len(shown):
            published[model] = PublishedCell(reason=INCOMPLETE)
            continue
        score = sum(known) / len(known)
        complete = [each for each in own if all(each in row.published[model].differences for row in rows)]
        found = {each: _mean_of(own[each]) - score for each in complete}
        published[model] = PublishedCell(score=score, differences=found)
    return Row(name=name, task=None, metric="mean over tasks", own=own, published=published)


def _average_of_run(models: Sequence[str], rows: Sequence[Row]) -> Row:
    """Return the mean over the tasks that a model has run: not XTREME's, which wants all nine."""
    own = {}
    for model in models:
        cells = [row.own[model] for row in rows]
        scores = [cell.score.mean for cell in cells if cell.score is not None]
        text = f"{len(scores)} of {len(cells)} tasks"
        own[model] = (
            OwnCell(score=Spread(values=[sum(scores) / len(scores)]), caveat=text) if scores else OwnCell(reason=text)
        )
    empty = {model: PublishedCell(reason="-") for model in PUBLISHED_MODELS}
    return Row(name="the tasks run", task=None, metric="not XTREME's average", own=own, published=empty)


def _mean_of(cell: OwnCell) -> float:
    assert cell.score is not None
    return cell.score.mean
