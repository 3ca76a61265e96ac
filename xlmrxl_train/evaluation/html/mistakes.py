"""What predictions got wrong: the worst examples of a language, and which class was taken for which."""

import heapq
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xlmrxl_train import metrics
from xlmrxl_train.errors import DataError
from xlmrxl_train.evaluation.comparison.reading import FinishedRun

SHOWN_LETTERS = 400  # of a text
_MAX_CLASSES = 40  # a larger table of confusion is not read by anybody


@dataclass(kw_only=True, slots=True)
class Mistake:
    """An example that was predicted badly."""

    id: str
    texts: list[str]
    prediction: str
    reference: str | None  # None: the task has none
    confidence: float | None  # probability of the prediction


@dataclass(kw_only=True, slots=True)
class Mistakes:
    """What one run got wrong in one language."""

    worst: list[Mistake] = field(default_factory=list)  # the worst first, among equal ones the most confident
    num_wrong: int = 0  # examples that are not wholly right
    confusion: Counter[tuple[str, str]] = field(default_factory=Counter)  # (truth, prediction) -> how often


def mistakes_of(run: FinishedRun, language: str, *, keep: int) -> Mistakes | None:
    """Read one language's predictions; None where the run wrote none."""
    path = run.folder / "predictions" / f"{language}.jsonl"
    if not path.is_file():
        return None
    metric, labels = run.metrics[0], set(map(str, run.settings.get("dataset.labels") or []))
    loaded, found = metrics.load(metric), Mistakes()
    heap: list[tuple[float, float, int, dict[str, Any]]] = []
    number = 0
    with path.open(encoding="utf-8") as lines:
        try:
            for text in lines:
                number += 1  # the message below names it
                line = json.loads(text)
                found.confusion.update(pair for pair in _pairs(line) if pair[0] in labels)
                badness = _badness(line, loaded, metric)
                if badness > 0:
                    found.num_wrong += 1
                    entry = (badness, _confidence(line) or 0.0, -number, line)
                    (heapq.heappush if len(heap) < keep else heapq.heappushpop)(heap, entry)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise DataError(
                f"{path}:{number}: a line must be a prediction as a run writes it, got {text[:60].strip()!r} "
                f"({type(error).__name__}). Restore the file, or remove it to report without examples."
            ) from None
    found.worst = [_mistake(entry[-1]) for entry in sorted(heap, key=lambda entry: entry[:3], reverse=True)]
    return found


def classes_of(run: FinishedRun, confusions: Sequence[Counter[tuple[str, str]]]) -> list[str]:
    """Return the classes of a table of confusion, in the data set's order; none where the task has no classes."""
    seen = dict.fromkeys(name for confusion in confusions for pair in confusion for name in pair)
    labels = [str(label) for label in run.settings.get("dataset.labels") or []]
    classes = [label for label in labels if label in seen] + sorted(name for name in seen if name not in labels)
    return classes if 1 < len(classes) <= _MAX_CLASSES and set(classes) & set(labels) else []


def _pairs(line: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (truth, prediction) of the example, or of each of its words."""
    truth, prediction = line.get("reference"), line.get("prediction")
    if isinstance(truth, str) and isinstance(prediction, str):
        return [(truth, prediction)]
    if isinstance(line.get("tokens"), list) and isinstance(truth, list) and isinstance(prediction, list):
        return list(zip(map(str, truth), map(str, prediction), strict=False))
    return []


def _badness(line: dict[str, Any], loaded: metrics.Metric, metric: str) -> float:
    """Return by how much one example alone misses the full score; of numbers, by how much they differ."""
    truth, prediction = line.get("reference"), line.get("prediction")
    if truth is not None and truth == prediction:
        return 0.0
    if isinstance(truth, float) and isinstance(prediction, float):
        return abs(truth - prediction)
    if isinstance(truth, str) and metric in ("macro_f1", "micro_f1"):  # they need several examples
        return 1.0
    rows = (line.get("statistics") or {}).get(metric)
    score = loaded.fold(np.asarray([rows], dtype=np.float64)) if rows else math.nan
    badness = 1 - score if loaded.HIGHER_IS_BETTER else score
    return badness if math.isfinite(badness) else 0.0


def _confidence(line: dict[str, Any]) -> float | None:
    if line.get("best"):  # answers in a text, the most probable first
        return float(line["best"][0]["probability"])
    return line.get("confidence")


def _mistake(line: dict[str, Any]) -> Mistake:
    if isinstance(line.get("tokens"), list):
        texts = [" ".join(map(str, line["tokens"]))]
        line |= {key: _tagged(line["tokens"], line[key], line[other]) for key, other in _EACH_OTHER}
    else:
        texts = line.get("texts") or [line[key] for key in ("source", "question") if line.get(key)]
    return Mistake(
        id=str(line["id"]),
        texts=[_cut(str(text)) for text in texts],
        prediction=f"loss {line['loss']:.2f} per token" if line.get("loss") else _shown(line.get("prediction")),
        reference=_shown(line["reference"]) if "reference" in line else None,
        confidence=_confidence(line),
    )


_EACH_OTHER = (("prediction", "reference"), ("reference", "prediction"))


def _tagged(tokens: list[Any], tags: Any, others: Any) -> Any:
    """Return the words whose tag is not the other's, each with its tag."""
    if not isinstance(tags, list) or not isinstance(others, list):
        return tags
    different = [(token, tag) for token, tag, other in zip(tokens, tags, others, strict=False) if tag != other]
    return " · ".join(f"{token}: {tag}" for token, tag in different) or "no word differs"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return _cut("; ".join(map(str, value)) or "none")
    if isinstance(value, float):
        return f"{value:.3g}"
    return "none" if value in (None, "") else _cut(str(value))


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_LETTERS else f"{text[:SHOWN_LETTERS]}..."
