"""Scores of a model in every language, the same to the last digit on any number of ranks.

Batches are planned without regard to the number of ranks and dealt out whole, so that every forward pass has the same
content whoever runs it. Predictions are gathered some thousand at a time, with their example's number; each example
must have exactly one. What stays is a few numbers per example, and predictions go to disk.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from xlmrxl_train import metrics
from xlmrxl_train.data.cache import FeatureTable
from xlmrxl_train.data.corpus import Corpus
from xlmrxl_train.data.planning import evaluation_batches
from xlmrxl_train.evaluation.bootstrap import interval
from xlmrxl_train.evaluation.predictions import PredictionFile
from xlmrxl_train.evaluation.scores import LanguageScore
from xlmrxl_train.evaluation.tally import Tally
from xlmrxl_train.model import prepacked
from xlmrxl_train.parallel import Strategy
from xlmrxl_train.progress import progress
from xlmrxl_train.stop import Stopped
from xlmrxl_train.tasks import Prediction, Task
from xlmrxl_train.track.console import Console

GATHERED_EXAMPLES = 4096  # predictions that are gathered, scored and written together, over all ranks


@dataclass(kw_only=True)
class Evaluator:
    """Runs a model over corpora and scores it."""

    strategy: Strategy
    task: Task
    tokens_per_batch: int
    resamples: int
    console: Console
    stop: Callable[[], bool] = lambda: False

    def evaluate(self, corpus: Corpus, *, intervals: bool, folder: Path | None = None) -> dict[str, LanguageScore]:
        """Return the scores per language, on every rank.

        Args:
            corpus: What to score.
            intervals: Whether to compute bootstrap intervals too.
            folder: Where to write <language>.jsonl with every prediction; None: nowhere.

        Raises:
            Stopped: A stop was requested on any rank; nothing was scored, no file stays half written.
            OSError: Predictions cannot be written.
            RuntimeError: Examples are missing or doubled among the predictions (a defect of ours; it names them).
        """
        world = self.strategy.world
        with ExitStack() as files:
            tallies = self._tallies(corpus, folder if world.is_first else None, files)
            for part in self.predictions(corpus):
                gathered = world.gather(part)
                world.first(partial(enter, tallies, gathered))
            return world.first(lambda: self._scores(corpus, tallies, intervals=intervals))

    def _tallies(self, corpus: Corpus, folder: Path | None, files: ExitStack) -> list[Tally]:
        tallies = []
        for language, table in zip(corpus.languages, corpus.tables, strict=True):
            file = None
            if folder is not None:
                file = PredictionFile(folder / f"{language}.jsonl", table.num_examples)
                files.callback(file.discard)
            texts = None if self.task.describes_texts else partial(self._texts, table)
            tallies.append(Tally(self.task, corpus.split, language, table.ids, file, texts))
        return tallies

    def _texts(self, table: FeatureTable, example: int) -> list[str]:
        return self.task.texts(table.features_of(example))

    def predictions(self, corpus: Corpus) -> Iterator[list[Prediction]]:
        """Yield this rank's share of the predictions, some thousand at a time over all ranks.

        Every rank makes the same number of forward passes, since an engine with divided weights gathers them in each;
        what a rank without work computes is dropped. Every rank yields equally often.
        """
        world, plan = self.strategy.world, self._plan(corpus)
        rounds = -(-len(plan) // world.size)
        any_rank = bool if self.strategy.whole else world.any  # a model that is whole needs no other rank's steps
        copies = prepacked(self.strategy.model) if self.strategy.whole else nullcontext()
        predictions: list[Prediction] = []
        since = 0  # examples of all ranks that were not yielded yet
        with copies, self.console.task(f"evaluate {corpus.split}", rounds) as advance:
            for number in range(rounds):
                index = number * world.size + world.rank
                with progress.doing(f"evaluating batch {number + 1} of {rounds}"):
                    features, places = corpus.features(plan[index % len(plan)])
                    batch = self.task.collate(features, places, draw=0)
                    inputs = self.task.prediction_inputs(batch.to(world.device).inputs, any_rank)
                    output = self.strategy.predict(inputs)
                    if index < len(plan):
                        predictions += self.task.predict(output, batch, features)
                advance()
                if world.any(self.stop()):
                    raise Stopped
                since += sum(map(len, plan[number * world.size : (number + 1) * world.size]))
                if since >= GATHERED_EXAMPLES or number == rounds - 1:
                    yield predictions
                    predictions, since = [], 0

    def _plan(self, corpus: Corpus) -> list[list[int]]:
        """Return the examples of each batch; a batch holds one language's."""
        return [
            [start + position for position in batch]
            for start, end in zip(corpus.starts[:-1].tolist(), corpus.starts[1:].tolist(), strict=True)
            for batch in evaluation_batches(corpus.sizes[start:end].tolist(), self.tokens_per_batch)
        ]

    def _scores(self, corpus: Corpus, tallies: list[Tally], *, intervals: bool) -> dict[str, LanguageScore]:
        check_complete(corpus, tallies)
        scores = {}
        for language, tally in zip(corpus.languages, tallies, strict=True):
            tally.close()
            score = LanguageScore(values={}, n=len(tally.ids), constant=tally.constant)
            for name, statistics in tally.statistics.items():
                metric = metrics.load(name)
                score.values[name] = metric.fold(statistics)
                if intervals and self.resamples:
                    score.intervals[name] = interval(statistics, metric.fold, self.resamples)
                progress.move()
            scores[language] = score
        return scores


def enter(tallies: list[Tally], parts: list[list[Prediction]]) -> None:
    """Enter the predictions of all ranks into the tallies of their languages."""
    of_table: dict[int, list[Prediction]] = {}
    for part in parts:
        for item in part:
            of_table.setdefault(item.table, []).append(item)
    for table, predictions in of_table.items():
        tallies[table].add(predictions)


def check_complete(corpus: Corpus, tallies: list[Tally]) -> None:
    """Make sure that every example has one prediction.

    Raises:
        RuntimeError: It names the first missing and doubled examples.
    """
    missing = [(table, example) for table, tally in enumerate(tallies) for example in tally.missing]
    doubled = [(table, example) for table, tally in enumerate(tallies) for example in tally.doubled]
    if missing or doubled:
        raise RuntimeError(
            f"{corpus.split}: {len(missing)} examples without a prediction {missing[:5]}, "
            f"{len(doubled)} with several {doubled[:5]} (table, example)."
        )
