"""The runs of one data set as a section: who they are, what differs, scores, averages, published scores, tests."""

from collections.abc import Sequence

from xlmrxl_train import metrics
from xlmrxl_train.data.languages import language as describe
from xlmrxl_train.evaluation.comparison.comparing import MEAN, Beside, Part
from xlmrxl_train.evaluation.comparison.folding import Group
from xlmrxl_train.evaluation.comparison.layout import (
    Section,
    Table,
    interval_text,
    range_text,
    score_text,
    setting_text,
    signed,
    warnings_of,
)
from xlmrxl_train.evaluation.comparison.published import PublishedSet
from xlmrxl_train.evaluation.numbers import number

_INTERVALS_BESIDE = 3  # so many groups have room for their intervals


def part_section(part: Part) -> Section:
    """Return the section of one data set."""
    runs = sum(len(group.runs) for group in part.groups)
    count = "1 run" if runs == 1 else f"{runs} runs"
    if len(part.groups) > 1:
        count += f", {len(part.groups)} configurations"
    section = Section(title=f"{part.dataset}, {part.split} split: {count}", warnings=warnings_of(part.groups))
    if part.other_examples:
        codes = ", ".join(part.other_examples[:5]) + (" ..." if len(part.other_examples) > 5 else "")
        section.warnings.append(f"The number of examples differs in {codes}: those scores are of different data.")
    for group in part.groups:
        section.lines += [f"{group.label}: {note}" if len(part.groups) > 1 else note for note in group.notes]
    section.tables.append(_runs(part.groups))
    if part.differing:
        section.tables.append(_differing(part))
    if len(part.groups) == 1:
        section.tables.append(_scores_of_one(part, part.groups[0]))
    else:
        section.tables += [_scores_beside(part, metric) for metric in part.metrics]
    if part.test_set:
        section.tables += _published(part, part.test_set)
    if part.paired:
        section.tables.append(_paired(part))
    return section


def _runs(groups: Sequence[Group]) -> Table:
    table = Table(
        title="Runs",
        columns=["", "model", "setting", "trained on", "steps", "seeds", "folders"],
        text_columns=7,
        notes=["Several seeds: the mean, and after ± the standard deviation over seeds (n - 1)."]
        if any(len(group.runs) > 1 for group in groups)
        else [],
    )
    for group in groups:
        steps = list(dict.fromkeys(f"{run.protocol.get('steps', 0):,}" for run in group.runs))
        folders = [str(run.folder) for run in group.runs]
        table.add(
            group.label,
            group.first.model,
            group.setting,
            _trained_on(group),
            ", ".join(steps),
            ", ".join(map(str, group.seeds)),
            folders[0] if len(folders) == 1 else f"{folders[0]} and {len(folders) - 1} more",
        )
    return table


def _differing(part: Part) -> Table:
    table = Table(
        title="What differs",
        columns=["setting", *(group.label for group in part.groups)],
        text_columns=1 + len(part.groups),
    )
    for key, values in part.differing.items():
        table.add(key, *map(setting_text, values))
    return table


def _scores_of_one(part: Part, group: Group) -> Table:
    head, *others = part.metrics
    several = len(group.runs) > 1
    columns = ["language", "", head, *(["lowest to highest"] if several else []), "95 % interval", *others, "n"]
    table = Table(title="Scores", columns=columns, text_columns=2)
    if several:
        table.notes.append("95 % interval: of the mean over seeds, examples and seeds resampled.")
    for code, scores in group.languages.items():
        spread = scores[head]
        table.add(
            code,
            _name(code, [group]),
            score_text(head, spread),
            *([range_text(head, spread)] if several else []),
            interval_text(head, spread.interval),
            *(score_text(metric, scores[metric]) for metric in others),
            f"{group.n[code]:,}",
        )
    for name in group.averages[head]:
        average = group.averages[head][name]
        table.add(
            _title(name),
            "",
            score_text(head, average),
            *([range_text(head, average) if average else ""] if several else []),
            interval_text(head, average.interval) if average else "",
            *(score_text(metric, group.averages[metric].get(name)) for metric in others),
            "",
            strong=True,
        )
    return table


def _scores_beside(part: Part, metric: str) -> Table:
    """Return one metric of several groups, one column each; intervals where there is room."""
    roomy = len(part.groups) <= _INTERVALS_BESIDE
    columns = ["language", ""]
    for group in part.groups:
        columns += [group.label, f"{group.label} 95 %"] if roomy else [group.label]
    same_n = not part.other_examples
    table = Table(title=metric, columns=[*columns, "n"], text_columns=2)
    for code in part.languages:
        cells: list[str] = []
        for group in part.groups:
            spread = group.languages.get(code, {}).get(metric)
            cells.append(score_text(metric, spread) if spread else "not scored")
            if roomy:
                cells.append(interval_text(metric, spread.interval) if spread else "")
        counts = [f"{group.n[code]:,}" if code in group.n else "-" for group in part.groups]
        shared = next(text for text in counts if text != "-")
        table.add(code, _name(code, part.groups), *cells, shared if same_n else " / ".join(counts))
    for name in dict.fromkeys(name for group in part.groups for name in group.averages[metric]):
        cells = []
        for group in part.groups:
            average = group.averages[metric].get(name)
            cells.append(score_text(metric, average))
            if roomy:
                cells.append(interval_text(metric, average.interval) if average else "")
        table.add(_title(name), "", *cells, "", strong=True)
    if len({tuple(sorted(group.n)) for group in part.groups}) > 1:
        table.notes.append(
            "The configurations scored different languages, so their averages are of different languages."
        )
    return table


def _published(part: Part, test_set: PublishedSet) -> list[Table]:
    """Return ours beside the published columns, a table per metric of the task's score; why others are not there."""
    tables = []
    notes = [note for beside in part.published for note in _why_not(beside, part.groups)]
    for metric in test_set.score:
        columns = [beside for beside in part.published if metric in beside.differences]
        if columns:
            tables.append(_published_table(part, test_set, metric, columns))
    if tables:
        tables[-1].notes += notes
    elif notes:
        tables.append(
            Table(title="Published scores", columns=["published", "why it does not stand beside ours"], text_columns=2)
        )
        for beside in part.published:
            for group, reason in beside.refused.items():
                name = f"{beside.column.title}, {beside.column.trained}"
                tables[-1].add(name, reason if len(part.groups) == 1 else f"{group}: {reason}")
    return tables


def _published_table(part: Part, test_set: PublishedSet, metric: str, columns: Sequence[Beside]) -> Table:
    table = Table(
        title=f"Beside published scores: {metric}",
        columns=["language", "", *(group.label for group in part.groups), *(beside.column.title for beside in columns)],
        text_columns=2,
        notes=["In brackets: ours minus the published score."]
        + [f"{beside.column.title}: {beside.column.source}." for beside in columns],
    )
    own_codes = {group.label: test_set.own_codes(group) for group in part.groups}
    for language in [*test_set.languages, MEAN]:
        own = []
        for group in part.groups:
            code = own_codes[group.label].get(language)
            if language == MEAN:
                own.append(score_text(metric, test_set.own_mean(group, metric)))
            else:
                own.append(score_text(metric, group.languages[code].get(metric)) if code else "not scored")
        cells = [_beside_cell(part, beside, metric, language) for beside in columns]
        if language != MEAN and not any(cells):
            continue
        name = "" if language == MEAN else describe(language).name
        table.add(language, name, *own, *cells, strong=language == MEAN)
    return table


def _beside_cell(part: Part, beside: Beside, metric: str, language: str) -> str:
    values = beside.column.mean if language == MEAN else beside.column.values.get(metric, {})
    value = values.get(metric if language == MEAN else language)
    found = beside.differences[metric].get(language, {})
    if value is None or not found:
        return ""
    single = len(part.groups) == 1
    shown = [signed(metric, gap) if single else f"{label} {signed(metric, gap)}" for label, gap in found.items()]
    return f"{number(metric, value)} ({', '.join(shown)})"


def _why_not(beside: Beside, groups: Sequence[Group]) -> list[str]:
    name = f"{beside.column.title}, {beside.column.trained}"
    return [
        f"Not beside {name}: {reason}." if len(groups) == 1 else f"{label} not beside {name}: {reason}."
        for label, reason in beside.refused.items()
    ]


def _paired(part: Part) -> Table:
    first, second = part.groups
    table = Table(
        title=f"Paired bootstrap: {first.label} minus {second.label}",
        columns=["language", "metric", "difference", "95 % interval", "p", "n"],
        text_columns=2,
        notes=[
            "The same resampled examples for both"
            + (", and resampled seeds" if max(len(first.runs), len(second.runs)) > 1 else "")
            + "; p is two-sided, and not corrected for the number of languages."
        ],
    )
    if lower := [metric for metric in part.metrics if not metrics.load(metric).HIGHER_IS_BETTER]:
        table.notes.append(f"Of {', '.join(lower)}, lower is better.")
    for test in sorted(part.paired, key=lambda test: part.metrics.index(test.metric)):
        mean = test.language is None
        name = "mean" if test.language is None else test.language
        if test.difference is None or test.p is None:
            table.add(name, test.metric, "not computable", test.reason or "", "", "", strong=mean)
            continue
        table.add(
            name,
            test.metric,
            signed(test.metric, test.difference),
            interval_text(test.metric, test.interval),
            f"{test.p:.3f}",
            f"{test.n:,} languages" if mean else f"{test.n:,}",
            strong=mean,
        )
    return table


def _trained_on(group: Group) -> str:
    """Return the training languages, with their data sets where these are not the one that is scored."""
    first = group.first
    if set(first.training) <= {first.dataset}:
        return ", ".join(first.train_languages) or "nothing"
    return "; ".join(f"{name} in {', '.join(codes)}" for name, codes in first.training.items())


def _name(code: str, groups: Sequence[Group]) -> str:
    """Return the language's name, and who was trained on it."""
    trained = [group.label for group in groups if code in group.first.train_languages]
    name = describe(code).name
    if not trained:
        return name
    return f"{name} (trained)" if len(trained) == len(groups) else f"{name} (trained: {', '.join(trained)})"


def _title(name: str) -> str:
    return name.replace("_", " ")
