"""Tag accuracy: the share of tokens whose tag is right; every token counts the same, whichever sentence it is in."""

from collections.abc import Sequence

import numpy as np

HIGHER_IS_BETTER = True


def statistics(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Return tokens right and tokens, [examples, 2].

    Args:
        predictions: Each sentence's tags, for example ["DET", "NOUN", "VERB"].
        references: The gold tags.
    """
    rows = [
        (sum(tag == true for tag, true in zip(predicted, gold, strict=True)), len(gold))
        for predicted, gold in zip(predictions, references, strict=True)
    ]
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


def fold(rows: np.ndarray) -> float:
    """Return the share, 0 to 1; NaN where there is no token."""
    right, tokens = rows.sum(axis=0).tolist()
    return right / tokens if tokens else float("nan")
