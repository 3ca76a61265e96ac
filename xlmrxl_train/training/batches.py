"""Batches of every optimizer step, made ahead of the step by a thread.

Which examples form a step depends on the number of examples of each table, the sampling temperature, the seed, the
epoch and the batch size alone; how they are cut into micro-batches depends on their lengths, the number of ranks and
the token budget. So a position in training is one number, the step.
"""

import queue
import threading
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from xlmrxl_train.data.corpus import Corpus
from xlmrxl_train.data.examples import Batch
from xlmrxl_train.data.planning import micro_batches, step_examples, steps_per_epoch
from xlmrxl_train.data.sampling import epoch_examples
from xlmrxl_train.progress import progress
from xlmrxl_train.tasks import Task

AHEAD = 3  # steps whose batches wait for the device


@dataclass(kw_only=True)
class StepBatches:
    """The micro-batches of one rank, step by step."""

    corpus: Corpus
    task: Task
    seed: int
    batch_size: int
    token_budget: int
    temperature: float = 1.0
    rank: int = 0
    world_size: int = 1
    left_out: int = 0  # steps of the order that are passed over: from here on, a step has the examples of a later one

    @property
    def steps_per_epoch(self) -> int:
        """Return the number of optimizer steps of one pass; the last one may be smaller."""
        return steps_per_epoch(len(self.corpus), self.batch_size)

    def examples(self, step: int) -> np.ndarray:
        """Return the examples of a step, over all ranks, in the corpus' numbering."""
        epoch, step_in_epoch = divmod(step + self.left_out, self.steps_per_epoch)
        positions = step_examples(len(self.corpus), self.batch_size, self.seed, epoch, step_in_epoch)
        if self.temperature == 1:
            return positions
        sizes = tuple(table.num_examples for table in self.corpus.tables)
        return epoch_examples(sizes, self.temperature, self.seed, epoch)[positions]

    def tokens(self, step: int) -> int:
        """Return the number of real tokens of a step, over all ranks."""
        return int(self.corpus.sizes[self.examples(step)].sum())

    def of_step(self, step: int) -> list[Batch]:
        """Return this rank's micro-batches of a step; every rank has the same number of them."""
        examples = self.examples(step)
        plan = micro_batches(self.corpus.sizes[examples].tolist(), self.world_size, self.token_budget)
        # Masks are drawn anew for every epoch; where an epoch has an example several times, for every step.
        place = step + self.left_out
        draw = (self.seed << 32) + (place // self.steps_per_epoch if self.temperature == 1 else place) + 1
        return [self._batch(examples[positions], draw) for positions in plan[self.rank]]

    def _batch(self, examples: np.ndarray, draw: int) -> Batch:
        if not len(examples):
            return self.task.empty_batch()
        return self.task.collate(*self.corpus.features(examples.tolist()), draw)

    def iterate(self, start: int, stop: int) -> Generator[tuple[int, list[Batch]], None, None]:
        """Yield (step, its micro-batches) from `start` up to `stop`, prepared ahead in a thread."""
        ready: queue.Queue[tuple[int, list[Batch]] | BaseException] = queue.Queue(AHEAD)
        closed = threading.Event()

        def put(item: tuple[int, list[Batch]] | BaseException) -> None:
            while not closed.is_set():
                try:
                    ready.put(item, timeout=0.5)
                    break
                except queue.Full:
                    continue

        def produce() -> None:
            try:
                for step in range(start, stop):
                    put((step, self.of_step(step)))
                    if closed.is_set():
                        return
            except BaseException as error:  # handed to the consumer, which raises it
                put(error)

        thread = threading.Thread(target=produce, name="batches", daemon=True)
        thread.start()
        try:
            for _ in range(start, stop):
                with progress.doing("waiting for its input"):
                    item = ready.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            closed.set()
            thread.join()
