"""Entity F1 where an entity counts only if it is well formed: B, then I of the same type.

Source: chakki-works/seqeval 1.2.2, `f1_score(mode="strict", scheme=IOB2)`, seqeval/scheme.py.
"""

from collections.abc import Sequence

import numpy as np

from xlmrxl_train.metrics import counts
from xlmrxl_train.metrics.chunks import strict_iob2

HIGHER_IS_BETTER = True


def statistics(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Return entities right, predicted and gold, [examples, 3].

    Args:
        predictions: Each sentence's tags, for example ["B-PER", "I-PER", "O"].
        references: The gold tags.

    Raises:
        ConfigError: A tag begins with something else than B, I or O.
    """
    return counts.of_sets(
        (strict_iob2(predicted), strict_iob2(gold)) for predicted, gold in zip(predictions, references, strict=True)
    )


fold = counts.f1
