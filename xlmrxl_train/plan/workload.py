"""How long a run's sequences are, and what its steps and micro-batches are made of."""

from dataclasses import dataclass

import numpy as np

from xlmrxl_train.data.corpus import Corpus
from xlmrxl_train.data.planning import micro_batches

STEPS = 30  # that are drawn to see how full micro-batches get
SAMPLE = 2000  # examples looked at
# Real XNLI pairs in English under XLM-R's vocabulary: mean 42.2 tokens, 95 % up to 65, 99 % up to 73, longest 96.
XNLI_MEAN, XNLI_DEVIATION, XNLI_LEAST, XNLI_LONGEST, XNLI_EXAMPLES = 42.2, 13.5, 8, 96, 392_702


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """A sample of the training set."""

    examples: tuple[tuple[int, ...], ...]
    """The lengths of each example's sequences."""
    total: int | None
    """Examples of the whole training set; None: not known."""
    origin: str
    """Where the lengths are from, for people."""

    @property
    def sizes(self) -> list[int]:
        """Return the tokens of each example."""
        return [sum(lengths) for lengths in self.examples]

    @property
    def mean(self) -> float:
        """Tokens of an example."""
        return sum(self.sizes) / len(self.examples)

    def cut(self, batch_size: int, ranks: int, budget: int) -> "Cut":
        """Draw some steps, cut them as training does, and look at the fullest."""
        sizes, random = np.array(self.sizes), np.random.default_rng(0)
        most, count = 0, 1
        for _ in range(STEPS):
            drawn = sizes[random.integers(0, len(sizes), batch_size)].tolist()
            plan = micro_batches(drawn, ranks, budget)
            count = max(count, len(plan[0]))
            most = max(most, *(sum(drawn[place] for place in part) for rank in plan for part in rank))
        return Cut(tokens=most, micro_batches=count)

    def filled(self, tokens: int) -> list[int]:
        """Return lengths of sequences that make up so many tokens, longest first, mixed as the sample is."""
        lengths: list[int] = []
        examples = self.examples
        for index in np.random.default_rng(1).integers(0, len(examples), tokens).tolist():
            left = tokens - sum(lengths)
            lengths += examples[index] if sum(examples[index]) <= left else [left] * (left > 0)
            if sum(lengths) >= tokens:
                break
        return sorted(lengths, reverse=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """How a step falls into micro-batches."""

    tokens: int  # of the fullest micro-batch of any rank
    micro_batches: int  # of each rank


def stated(mean: float | None, max_length: int, total: int | None) -> Workload:
    """Return lengths around a mean, spread as XNLI's are, none longer than allowed; None: XNLI's own."""
    middle = XNLI_MEAN if mean is None else mean
    scale = middle / XNLI_MEAN
    drawn = np.random.default_rng(0).normal(middle, XNLI_DEVIATION * scale, SAMPLE)
    longest = min(max_length, max(int(XNLI_LONGEST * scale), int(middle)))
    lengths = np.clip(np.rint(drawn), min(XNLI_LEAST, longest), longest).astype(int).tolist()
    origin = "real XNLI pairs, mean 42 tokens" if mean is None else f"mean {mean:g} tokens, as plan.length says"
    return Workload(examples=tuple((length,) for length in lengths), total=total, origin=origin)


def sampled(corpus: Corpus) -> Workload:
    """Return the lengths of some examples of a corpus."""
    chosen = np.random.default_rng(0).permutation(len(corpus))[:SAMPLE]
    examples = []
    for number in chosen.tolist():
        table, position = corpus.locate(number)
        lengths = corpus.tables[table].lengths
        first, last = np.searchsorted(corpus.tables[table].example_of, [position, position + 1])
        examples.append(tuple(lengths[first:last].tolist()))
    return Workload(examples=tuple(examples), total=len(corpus), origin=f"the training set, {len(corpus):,} examples")
