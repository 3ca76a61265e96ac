"""A comparison as the values of a JSON file."""

from typing import Any

from xlmrxl_train.evaluation.comparison.comparing import MEAN, Comparison, Part
from xlmrxl_train.evaluation.comparison.folding import Group, Spread
from xlmrxl_train.evaluation.comparison.xtreme import Row


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Return the whole comparison as plain values; scores are shares, as in report.json."""
    return {
        "datasets": [_json_part(part) for part in comparison.parts],
        "xtreme": [_json_row(row) for row in comparison.xtreme.rows] if comparison.xtreme else None,
        "left_out": comparison.left_out,
    }


def _json_part(part: Part) -> dict[str, Any]:
    return {
        "dataset": part.dataset,
        "split": part.split,
        "metrics": part.metrics,
        "groups": [_json_group(group) for group in part.groups],
        "differing": {
            key: {group.label: value for group, value in zip(part.groups, values, strict=True)}
            for key, values in part.differing.items()
        },
        "paired": [
            {
                "first": part.groups[0].label,
                "second": part.groups[1].label,
                "language": test.language or MEAN,
                "metric": test.metric,
                "n": test.n,
                "difference": test.difference,
                "interval": test.interval,
                "p": test.p,
                "reason": test.reason,
            }
            for test in part.paired
        ],
        "published": [
            {
                "model": beside.column.model,
                "trained": beside.column.trained,
                "benchmark": beside.column.benchmark or None,
                "source": beside.column.source,
                "mean": beside.column.mean,
                "languages": beside.column.values,
                "ours_minus_published": beside.differences,
                "refused": beside.refused,
            }
            for beside in part.published
        ],
    }


def _json_group(group: Group) -> dict[str, Any]:
    return {
        "label": group.label,
        "model": group.first.model,
        "setting": group.setting,
        "stand_ins": group.stand_ins,
        "limit": group.limits[0] if group.limits else None,
        "train_languages": group.first.train_languages,
        "runs": [{"folder": str(run.folder), "seed": run.seed} for run in group.runs],
        "languages": {
            code: {"n": group.n[code], **{metric: _json_spread(spread) for metric, spread in scores.items()}}
            for code, scores in group.languages.items()
        },
        "averages": {
            metric: {name: _json_spread(spread) if spread else None for name, spread in averages.items()}
            for metric, averages in group.averages.items()
        },
    }


def _json_spread(spread: Spread) -> dict[str, Any]:
    return {
        "mean": spread.mean,
        "deviation": spread.deviation,
        "min": min(spread.values),
        "max": max(spread.values),
        "interval": spread.interval,
        "values": spread.values,
    }


def _json_row(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "task": row.task,
        "metric": row.metric,
        "ours": {
            model: {
                "score": cell.score.mean if cell.score else None,
                "deviation": cell.score.deviation if cell.score else None,
                "by_metric": cell.by_metric,
                "caveat": cell.caveat,
                "reason": cell.reason,
            }
            for model, cell in row.own.items()
        },
        "published": {
            model: {
                "score": cell.score,
                "ours_minus_published": cell.differences,
                "reason": cell.reason,
                "source": cell.source,
            }
            for model, cell in row.published.items()
        },
    }
