"""Two models on the same examples: scores, paired differences, divergence of their predictions, speed.

Both see each batch, one after the other, so that whatever else the machine does concerns both alike.

Suffixes: N rows, C classes, B sequences, L positions.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xlmrxl_train import metrics
from xlmrxl_train.data.corpus import Corpus
from xlmrxl_train.data.planning import evaluation_batches
from xlmrxl_train.evaluation.bootstrap import bounds, resampled_mean
from xlmrxl_train.evaluation.evaluator import check_complete
from xlmrxl_train.evaluation.tally import Tally
from xlmrxl_train.model import ModelOutput
from xlmrxl_train.progress import progress
from xlmrxl_train.tasks import Task
from xlmrxl_train.track.console import Console


@dataclass(kw_only=True, slots=True)
class Difference:
    """One language: how much a changed model differs from its original."""

    language: str
    n: int
    original: dict[str, float]
    changed: dict[str, float]
    interval: dict[str, tuple[float, float]]
    """Metric -> 95 % interval of changed minus original, on the same resampled examples."""
    divergence: float | None
    """Mean KL(original || changed) of a prediction, in nats; None where the task's output is no distribution."""

    def loss(self, metric: str) -> float:
        """Return by how much the original is better."""
        gap = self.original[metric] - self.changed[metric]
        return gap if metrics.load(metric).HIGHER_IS_BETTER else -gap


@dataclass(kw_only=True, slots=True)
class _Side:
    model: nn.Module
    tallies: list[Tally]
    seconds: float = 0.0


@dataclass(kw_only=True, slots=True)
class SideBySide:
    """What a comparison of two models on one corpus found."""

    languages: list[Difference] = field(default_factory=list)
    tokens: int = 0
    seconds: tuple[float, float] = (0.0, 0.0)  # in forward passes: original, changed
    mean_interval: dict[str, tuple[float, float]] = field(default_factory=dict)  # of the mean over languages


def compare_models(
    original: nn.Module, changed: nn.Module, *, task: Task, corpus: Corpus, tokens_per_batch: int, resamples: int,
    device: torch.device, console: Console,
) -> SideBySide:  # fmt: skip
    """Run two models over a corpus, in evaluation mode, on one device.

    Args:
        original: Takes the task's packed batches.
        changed: The same model with other weights.
        task: Reads predictions off outputs.
        corpus: What to score.
        tokens_per_batch: As in evaluation.
        resamples: Of the bootstrap.
        device: Of both models.
        console: Shows how far it is.
    """
    sides = [
        _Side(
            model=model,
            tallies=[
                Tally(task, corpus.split, language, table.ids, None)
                for language, table in zip(corpus.languages, corpus.tables, strict=True)
            ],
        )
        for model in (original, changed)
    ]
    sums = np.zeros((len(corpus.tables), 2))  # per language: divergence, number of distributions
    result, plan = SideBySide(), list(_plan(corpus, tokens_per_batch))
    _run(sides[0].model, _inputs(task, corpus, plan[0][1], device), device)  # the first pass pays for others
    _run(sides[1].model, _inputs(task, corpus, plan[0][1], device), device)
    with console.task(f"compare on {corpus.split}", len(plan)) as advance:
        for number, (table, examples) in enumerate(plan):
            with progress.doing(f"comparing batch {number + 1} of {len(plan)}"):
                features, places = corpus.features(examples)
                batch = task.collate(features, places, draw=0)
                inputs = task.prediction_inputs(batch.to(device).inputs, bool)
                outputs: list[ModelOutput] = []
                for side in sides:
                    output, seconds = _run(side.model, inputs, device)
                    side.seconds += seconds
                    side.tallies[table].add(task.predict(output, batch, features))
                    outputs.append(output)
                sums[table] += divergence(outputs[0], outputs[1], inputs, task.model_options().get("problem_type"))
                result.tokens += batch.num_tokens
            advance()
    for side in sides:
        check_complete(corpus, side.tallies)
    result.seconds = (sides[0].seconds, sides[1].seconds)
    samples: dict[str, list[np.ndarray]] = {}
    for table, language in enumerate(corpus.languages):
        item, resampled = _difference(language, sides, table, sums[table], resamples)
        result.languages.append(item)
        for name, values in resampled.items():
            samples.setdefault(name, []).append(values)
    result.mean_interval = {name: bounds(np.mean(values, axis=0)) for name, values in samples.items()}
    return result


def _plan(corpus: Corpus, tokens_per_batch: int) -> Iterator[tuple[int, list[int]]]:
    """Yield table and examples of each batch; a batch holds one language's."""
    for table, (start, end) in enumerate(zip(corpus.starts[:-1].tolist(), corpus.starts[1:].tolist(), strict=True)):
        for batch in evaluation_batches(corpus.sizes[start:end].tolist(), tokens_per_batch):
            yield table, [start + position for position in batch]


def _inputs(task: Task, corpus: Corpus, examples: list[int], device: torch.device) -> dict[str, Any]:
    return task.prediction_inputs(task.collate(*corpus.features(examples), draw=0).to(device).inputs, bool)


@torch.inference_mode()
def _run(model: nn.Module, inputs: dict[str, Any], device: torch.device) -> tuple[ModelOutput, float]:
    wait: Callable[[], None] = torch.cuda.synchronize if device.type == "cuda" else _nothing
    wait()
    start = time.perf_counter()
    output = model(**inputs)
    wait()
    return output, time.perf_counter() - start


def _nothing() -> None:
    """Wait for a device that computes at once."""


def _difference(
    language: str, sides: list[_Side], table: int, sums: np.ndarray, resamples: int
) -> tuple[Difference, dict[str, np.ndarray]]:
    """Return what is found in one language, and the resampled differences of each metric."""
    original, changed = (side.tallies[table].statistics for side in sides)
    folds = {name: metrics.load(name).fold for name in original}
    resampled = {}
    for name, fold in folds.items() if resamples else ():
        pair = [resampled_mean([side[name]], fold, resamples) for side in (changed, original)]
        resampled[name] = pair[0] - pair[1]
    item = Difference(
        language=language,
        n=len(sides[0].tallies[table].ids),
        original={name: fold(original[name]) for name, fold in folds.items()},
        changed={name: fold(changed[name]) for name, fold in folds.items()},
        interval={name: bounds(values) for name, values in resampled.items()},
        divergence=float(sums[0] / sums[1]) if sums[1] else None,
    )
    return item, resampled


def divergence(
    original: ModelOutput, changed: ModelOutput, inputs: dict[str, Any], problem_type: str | None = None
) -> tuple[float, int]:
    """Return the sum of KL(original || changed) over the distributions of a batch, in nats, and their number.

    Rows of logits over classes or choices are distributions, of several labels each logit is one; so are a span's start
    and end over the positions of its sequence. Numbers, and vocabularies of which no logits are kept, are none.
    """
    if original.logits is not None and changed.logits is not None and problem_type != "regression":
        if problem_type == "multi_label_classification":
            pairs = [torch.stack([output.logits, torch.zeros_like(output.logits)], -1).flatten(0, 1)
                     for output in (original, changed) if output.logits is not None]  # fmt: skip
            return _kl(*pairs)
        return _kl(original.logits, changed.logits)
    total, count = 0.0, 0
    for name in ("start_logits", "end_logits"):
        left, right = getattr(original, name), getattr(changed, name)
        if left is not None and right is not None:
            padded = [inputs["sequences"].to_padded(values, torch.finfo(values.dtype).min) for values in (left, right)]
            part, number = _kl(*padded)
            total, count = total + part, count + number
    return total, count


def _kl(left_NC: Tensor, right_NC: Tensor) -> tuple[float, int]:
    log_p, log_q = (logits.float().flatten(0, -2).log_softmax(-1) for logits in (left_NC, right_NC))
    p = log_p.exp()
    terms = torch.where(p > 0, p * (log_p - log_q), 0.0)
    return float(terms.sum()), len(terms)
