"""F1 of mined translations: a pair is right if it is one of the gold pairs. XTREME scores BUCC so.

Source: `bucc_f1` of google-research/xtreme evaluate.py at 09182488.
"""

from collections.abc import Sequence

import numpy as np

from xlmrxl_train.metrics import counts

HIGHER_IS_BETTER = True


def statistics(predictions: Sequence[Sequence[int | str]], references: Sequence[Sequence[int | str]]) -> np.ndarray:
    """Return pairs right, mined and gold, [examples, 3].

    Args:
        predictions: For each source sentence the ids of the target sentences mined for it, mostly none or one.
        references: The ids of its translations, mostly none or one.
    """
    return counts.of_sets((set(mined), set(gold)) for mined, gold in zip(predictions, references, strict=True))


fold = counts.f1
