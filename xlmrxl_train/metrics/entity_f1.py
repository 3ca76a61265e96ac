"""Entity F1: an entity is right if its type and its first and last token are, micro-averaged over all types.

seqeval's default, which is conlleval's rule: tags that fit no scheme are read as well as they can be. XTREME scores
PAN-X so.

Source: chakki-works/seqeval 1.2.2, `f1_score` of seqeval/metrics/sequence_labeling.py; google-research/xtreme
evaluate.py at 09182488 (`f1`).
"""

from collections.abc import Sequence

import numpy as np

from xlmrxl_train.metrics import counts
from xlmrxl_train.metrics.chunks import conlleval, type_after_prefix

HIGHER_IS_BETTER = True


def statistics(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Return entities right, predicted and gold, [examples, 3].

    Args:
        predictions: Each sentence's tags (BIO or IOBES), for example ["B-PER", "I-PER", "O"].
        references: The gold tags.
    """
    return counts.of_sets(
        (conlleval(predicted, type_after_prefix), conlleval(gold, type_after_prefix))
        for predicted, gold in zip(predictions, references, strict=True)
    )


fold = counts.f1
