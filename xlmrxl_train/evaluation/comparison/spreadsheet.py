"""A comparison as rows of a CSV file."""

import csv
import io
from collections.abc import Iterator
from typing import Any

from xlmrxl_train.data.languages import language as describe
from xlmrxl_train.evaluation.comparison.comparing import MEAN, Comparison, Part
from xlmrxl_train.evaluation.comparison.folding import Spread

_CSV = (
    "kind", "dataset", "split", "group", "model", "seeds", "setting", "stand_in", "language", "name", "script",
    "family", "average", "metric", "score", "deviation", "min", "max", "low", "high", "p", "n", "source", "reason",
)  # fmt: skip


def to_csv(comparison: Comparison) -> str:
    """Return one row per score, average, published score and test; empty cells where a column does not apply."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _CSV, lineterminator="\n")
    writer.writeheader()
    for part in comparison.parts:
        place = {"dataset": part.dataset, "split": part.split}
        writer.writerows(place | row for row in _csv_part(part))
    for row in comparison.xtreme.rows if comparison.xtreme else []:
        place = {"kind": "xtreme", "dataset": row.name if row.task else "", "average": "" if row.task else row.name}
        for model, own in row.own.items():
            score = {"score": own.score.mean, "deviation": own.score.deviation} if own.score else {}
            reason = {"reason": own.reason or own.caveat}
            writer.writerow(place | {"model": model, "metric": row.metric} | score | reason)
        for model, cell in row.published.items():
            known = {"score": cell.score, "source": cell.source, "reason": cell.reason}
            writer.writerow(place | {"kind": "xtreme published", "model": model, "metric": row.metric} | known)
    return stream.getvalue()


def _csv_part(part: Part) -> Iterator[dict[str, Any]]:
    for group in part.groups:
        who = {
            "group": group.label,
            "model": group.first.model,
            "seeds": " ".join(map(str, group.seeds)),
            "setting": group.setting,
            "stand_in": "; ".join(group.stand_ins),
        }
        for code, scores in group.languages.items():
            for metric, spread in scores.items():
                yield who | _csv_language(code) | _csv_spread("score", metric, spread) | {"n": group.n[code]}
        for metric, averages in group.averages.items():
            for name, average in averages.items():
                if average:
                    yield who | {"average": name} | _csv_spread("average", metric, average)
    for beside in part.published:
        who = {"kind": "published", "model": beside.column.title, "setting": beside.column.trained}
        who |= {"source": beside.column.source}
        for metric, mean in beside.column.mean.items():
            yield who | {"average": MEAN, "metric": metric, "score": mean}
        for metric, values in beside.column.values.items():
            for code, value in values.items():
                yield who | _csv_language(code) | {"metric": metric, "score": value}
    for test in part.paired:
        low, high = test.interval or (None, None)
        yield {
            "kind": "difference",
            "group": f"{part.groups[0].label} - {part.groups[1].label}",
            "metric": test.metric,
            "score": test.difference,
            "low": low,
            "high": high,
            "p": test.p,
            "n": test.n,
            "reason": test.reason,
        } | (_csv_language(test.language) if test.language else {"average": MEAN})


def _csv_language(code: str) -> dict[str, Any]:
    entry = describe(code)
    return {"language": code, "name": entry.name, "script": entry.script, "family": entry.family}


def _csv_spread(kind: str, metric: str, spread: Spread) -> dict[str, Any]:
    low, high = spread.interval or (None, None)
    return {
        "kind": kind,
        "metric": metric,
        "score": spread.mean,
        "deviation": spread.deviation,
        "min": min(spread.values),
        "max": max(spread.values),
        "low": low,
        "high": high,
    }
