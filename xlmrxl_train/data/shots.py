"""A few labelled examples of a language, drawn by the seed and by nothing else.

The order in which examples are drawn is that of a hash of seed and id. So k examples are among those of any larger k,
other rows do not change which of two comes first, and in parallel data sets, whose ids are the same in every language,
the same examples are drawn in each: a difference between languages is not one of the draw.
"""

import hashlib
import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from xlmrxl_train.data.examples import Example


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """How many examples to draw, and by which seed."""

    count: int
    seed: int

    def of(self, examples: Iterable[Example]) -> list[Example]:
        """Return the drawn examples in the order of the data set; all of them where there are fewer."""
        drawn = heapq.nsmallest(self.count, enumerate(examples), key=lambda item: self._rank(item[1].id))
        return [example for _, example in sorted(drawn, key=lambda item: item[0])]

    def _rank(self, id_: str) -> bytes:
        return hashlib.sha256(f"{self.seed}/{id_}".encode()).digest()
