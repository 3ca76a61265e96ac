"""Part-of-speech F1 as XTREME scores UDPOS: raw tags, read by seqeval as if they were entities.

XTREME installed seqeval without a version when 0.0.12 was the newest (June 2019 to September 2020). There a tag's type
is what follows its last hyphen, so the whole tag, and its prefix is its first character, which means something for some
tags by accident:

- neighbours with equal tags are one entity: NOUN NOUN is right only if both are, and its edges too;
- SCONJ and SYM begin with S: each token is an entity of its own. So would be tags that begin with B;
- INTJ begins with I, which changes nothing for raw tags; a tag "E..." would end its entity at every token;
- X, "_" and PUNCT are entities like others; a tag that begins with O or "." counts nothing.

Versions since 0.0.16 take "OUN" for the type of NOUN, "CONJ" for that of both CCONJ and SCONJ, and "_" for that of X
and of O alike: their score differs, and they warn of each tag.

Source: chakki-works/seqeval 0.0.12, `get_entities` of seqeval/metrics/sequence_labeling.py; google-research/xtreme
evaluate.py at 09182488 (`f1`) and install_tools.sh at 1e21ba07.
"""

from collections.abc import Sequence

import numpy as np

from xlmrxl_train.metrics import counts
from xlmrxl_train.metrics.chunks import conlleval, type_after_last_hyphen

HIGHER_IS_BETTER = True


def statistics(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Return runs of tags right, predicted and gold, [examples, 3].

    Args:
        predictions: Each sentence's tags, for example ["DET", "NOUN", "VERB"].
        references: The gold tags.
    """
    return counts.of_sets(
        (conlleval(predicted, type_after_last_hyphen), conlleval(gold, type_after_last_hyphen))
        for predicted, gold in zip(predictions, references, strict=True)
    )


fold = counts.f1
