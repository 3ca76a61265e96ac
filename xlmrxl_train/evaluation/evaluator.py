"""Scores of a model in every language, the same to the last digit on any number of ranks.

Batches are planned without regard to the number of ranks and dealt out whole, so that every forward pass has the same
content whoever runs it. Predictions are gathered with their example's number; each must be there exactly once.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

from xlmrxl_train import metrics
from xlmrxl_train.data.corpus import Corpus
from xlmrxl_train.data.planning import evaluation_batches
from xlmrxl_train.evaluation.bootstrap import interval
from xlmrxl_train.model import prepacked
from xlmrxl_train.parallel import Strategy
from xlmrxl_train.stop import Stopped
from xlmrxl_train.tasks import Prediction, Task
from xlmrxl_train.track.console import Console


@dataclass(kw_only=True, slots=True)
class LanguageScore:
    """What a model scores in one language."""

    values: dict[str, float]  # metric -> score
    n: int  # examples
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)  # metric -> 95 % bootstrap interval


@dataclass(kw_only=True)
class Evaluator:
    """Runs a model over corpora and scores it."""

    strategy: Strategy
    task: Task
    tokens_per_batch: int
    resamples: int
    console: Console
    stop: Callable[[], bool] = lambda: False

    def evaluate(self, corpus: Corpus, *, intervals: bool) -> dict[str, LanguageScore]:
        """Return the scores per language, on every rank.

        Raises:
            Stopped: A stop was requested on any rank; nothing was scored.
            RuntimeError: Examples are missing or doubled among the predictions (a defect of ours; it names them).
        """
        world = self.strategy.world
        gathered = world.gather(self.predict(corpus))
        return world.first(
            lambda: self.score(corpus, [item for part in gathered for item in part], intervals=intervals)
        )

    def predict(self, corpus: Corpus) -> list[Prediction]:
        """Return this rank's share of the predictions.

        Every rank makes the same number of forward passes, since an engine with divided weights gathers them in each;
        what a rank without work computes is dropped.
        """
        world = self.strategy.world
        plan = [
            [start + position for position in batch]
            for start, end in zip(corpus.starts[:-1].tolist(), corpus.starts[1:].tolist(), strict=True)
            for batch in evaluation_batches(corpus.sizes[start:end].tolist(), self.tokens_per_batch)
        ]
        predictions: list[Prediction] = []
        rounds = -(-len(plan) // world.size)
        copies = prepacked(self.strategy.model) if self.strategy.whole else nullcontext()
        with copies, self.console.task(f"evaluate {corpus.split}", rounds) as advance:
            for index in range(world.rank, rounds * world.size, world.size):
                batch = self.task.collate(*corpus.features(plan[index % len(plan)]), draw=0)
                output = self.strategy.predict(batch.to(world.device).inputs)
                if index < len(plan):
                    predictions += self.task.predict(output, batch)
                advance()
                if world.any(self.stop()):
                    raise Stopped
        return predictions

    def score(self, corpus: Corpus, predictions: Sequence[Prediction], *, intervals: bool) -> dict[str, LanguageScore]:
        """Score gathered predictions, language by language."""
        check_complete(corpus, predictions)
        scores = {}
        for table, language in enumerate(corpus.languages):
            rows = sorted((item for item in predictions if item.table == table), key=lambda item: item.example)
            guesses, truths = [item.prediction for item in rows], [item.reference for item in rows]
            score = LanguageScore(values={}, n=len(rows))
            for name in self.task.metrics:
                metric = metrics.load(name)
                statistics = metric.statistics(guesses, truths)
                score.values[name] = metric.fold(statistics)
                if intervals and self.resamples:
                    score.intervals[name] = interval(statistics, metric.fold, self.resamples)
            scores[language] = score
        return scores


def check_complete(corpus: Corpus, predictions: Sequence[Prediction]) -> None:
    """Make sure that every example has one prediction.

    Raises:
        RuntimeError: It names the first missing and doubled examples.
    """
    seen = Counter((item.table, item.example) for item in predictions)
    expected = [corpus.locate(example) for example in range(len(corpus))]
    missing = [place for place in expected if place not in seen]
    doubled = [place for place, count in seen.items() if count > 1]
    if missing or doubled:
        raise RuntimeError(
            f"{corpus.split}: {len(missing)} examples without a prediction {missing[:5]}, "
            f"{len(doubled)} with several {doubled[:5]} (table, example)."
        )
