"""Figures as data: page.js draws them with Plotly and lists the same numbers in a table beside each."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from xlmrxl_train import metrics
from xlmrxl_train.data.languages import language as describe
from xlmrxl_train.evaluation.comparison.comparing import Part
from xlmrxl_train.evaluation.html.history import History
from xlmrxl_train.evaluation.html.scores import extremes, is_share
from xlmrxl_train.evaluation.numbers import number

Figure = dict[str, Any]
Histories = list[list[History]]  # of each group, of each run

_MAX_POINTS = 400  # of a curve; more are not seen, and fill the page
_CURVES = {  # key of metrics.jsonl -> what people call it
    "loss": "Training loss",
    "lr": "Learning rate",
    "grad_norm": "Gradient norm before clipping",
    "tokens_per_second": "Real tokens per second",
    "matrix_share": "Share of the devices' matrix peak",
    "input_wait": "Share of the time that waits for input",
    "memory_gb": "Memory of the first process, GB",
    "gpu_memory_gb": "Largest memory of the first GPU, GB",
}
_SHARES = ("matrix_share", "input_wait")
_NO_CURVES = ("step", "total_steps", "epoch", "tokens", "skipped", "unchanged", "energy_wh")


def by_step(part: Part, histories: Histories) -> Figure | None:
    """Return the score of every language at every look at the validation split; seeds are averaged."""
    choices = []
    for group, runs in zip(part.groups, histories, strict=True):
        shared = [step for step in runs[0].languages if all(step in run.languages for run in runs)]
        if not shared:
            continue
        codes = [code for code in part.languages if any(code in run.languages[shared[0]] for run in runs)]
        for metric in part.metrics:
            rows = [[_mean([run.languages[step].get(code, {}).get(metric) for run in runs]) for step in shared]
                    for code in codes]  # fmt: skip
            choices.append(
                {
                    "name": f"{group.label}: {metric}" if len(part.groups) > 1 else metric,
                    "x": list(map(str, shared)),
                    "y": [_named(code) for code in codes],
                    "z": rows,
                    "percent": is_share(metric),
                    "reverse": not metrics.load(metric).HIGHER_IS_BETTER,
                    "caption": _caption(metric, shared[-1], codes, [row[-1] for row in rows]),
                }
            )
    if not choices:
        return None
    return _heat("Languages by step", "optimizer step", "language", choices)


def transfer(part: Part, histories: Histories) -> Figure | None:
    """Return mean and transfer gap over steps, of the first metric."""
    metric = part.metrics[0]
    lines = []
    for position, (group, runs) in enumerate(zip(part.groups, histories, strict=True)):
        shared = [step for step in runs[0].averages if all(step in run.averages for run in runs)]
        for dash, name in enumerate(("mean", "mean_without_training_languages", "transfer_gap")):
            means = [(step, _mean([run.averages[step].get(metric, {}).get(name) for run in runs])) for step in shared]
            if points := [(step, value) for step, value in means if value is not None]:
                lines.append(_line(name.replace("_", " "), group.label, position, dash, points))
    if not lines:
        return None
    caption = f"On the validation split: {metric}, averaged over languages; the gap is training languages minus others."
    return _lines(part, "Transfer by step", lines, percent=is_share(metric), caption=caption)


def curves(part: Part, histories: Histories) -> list[Figure]:
    """Return a figure for each number that training wrote at its steps: loss, learning rate, speed, memory, ..."""
    keys = dict.fromkeys(
        key
        for runs in histories
        for run in runs
        for line in run.train[:1] + run.train[-1:]
        for key, value in line.items()
        if isinstance(value, int | float) and key not in _NO_CURVES
    )
    found = []
    for key in sorted(keys, key=lambda key: list(_CURVES).index(key) if key in _CURVES else len(_CURVES)):
        title = _CURVES.get(key, key.replace("_", " "))
        lines = []
        for position, (group, runs) in enumerate(zip(part.groups, histories, strict=True)):
            for seed, run in zip(group.seeds, runs, strict=True):
                points = [(line["step"], line[key]) for line in run.train if line.get(key) is not None]
                if points:
                    lines.append(_line(f"seed {seed}", group.label, position, 0, points))
        if lines:
            found.append(_lines(part, title, lines, percent=key in _SHARES, caption=_ends(lines)))
    return found


def confusion(names: Sequence[str], counts: Sequence[Counter[tuple[str, str]]], classes: list[str]) -> Figure | None:
    """Return which class was taken for which, a table for each name.

    Args:
        names: Of a group, a language or both.
        counts: (truth, prediction) -> how often, for each name.
        classes: In the data set's order.
    """
    if not classes:
        return None
    choices = [
        {
            "name": name,
            "x": classes,
            "y": classes,
            "z": [[count[truth, prediction] for prediction in classes] for truth in classes],
            "shares": True,
            "caption": "Each row holds the examples of one true class, and adds up to 100 %.",
        }
        for name, count in zip(names, counts, strict=True)
    ]
    return _heat("Confusion", "predicted", "true", choices)


def _heat(title: str, x: str, y: str, choices: list[dict[str, Any]]) -> Figure:
    return {"kind": "heat", "title": title, "x": x, "y": y, "choices": choices, "caption": choices[0]["caption"]}


def _lines(part: Part, title: str, lines: list[dict[str, Any]], *, percent: bool, caption: str) -> Figure:
    return {"kind": "lines", "title": title, "x": "optimizer step", "lines": lines, "several": len(part.groups) > 1,
            "percent": percent, "caption": caption}  # fmt: skip


def _line(name: str, label: str, group: int, dash: int, points: list[tuple[int, float]]) -> dict[str, Any]:
    stride = -(-len(points) // _MAX_POINTS)
    kept = points[::stride] + points[-1:] * bool((len(points) - 1) % stride)
    return {"name": name, "label": label, "group": group, "dash": dash, "x": [x for x, _ in kept],
            "y": [float(f"{y:.5g}") for _, y in kept]}  # fmt: skip


def _ends(lines: list[dict[str, Any]]) -> str:
    first = lines[0]
    whose = f" ({first['label']}, {first['name']})" if len(lines) > 1 else ""
    ends = [f"{_brief(first['y'][place])} at step {first['x'][place]:,}" for place in (0, -1)]
    return f"From {' to '.join(ends)}{whose}."


def _brief(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 5) if known else None


def _named(code: str) -> str:
    return f"{describe(code).name} ({code})"


def _caption(metric: str, step: int, codes: Sequence[str], values: Sequence[float | None]) -> str:
    scores = {code: value for code, value in zip(codes, values, strict=True) if value is not None}
    if not scores:
        return f"On the validation split: {metric}."
    best, worst = extremes(scores, metric)
    return (
        f"On the validation split, {metric} at step {step:,}: best {describe(best).name} "
        f"{number(metric, scores[best])}, worst {describe(worst).name} {number(metric, scores[worst])}."
    )
