"""Which sentence is nearest to which, by cosine or by margin; numpy, blocks of queries at a time.

Suffixes: N queries, M keys, D features, K neighbours.
"""

from dataclasses import dataclass

import numpy as np

_BLOCK_ELEMENTS = 2**25  # similarities held at once: 128 MB


def normalised(vectors_ND: np.ndarray) -> np.ndarray:
    """Return vectors of length 1; a zero vector stays zero."""
    norms_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    unit_ND: np.ndarray = (vectors_ND / np.maximum(norms_N1, 1e-12)).astype(np.float32)
    return unit_ND


def neighbours(queries_ND: np.ndarray, keys_MD: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return similarity and index of each query's nearest keys, nearest first, both [N, K]; the lower index wins.

    Args:
        queries_ND: Of length 1.
        keys_MD: Of length 1.
        count: K; fewer where there are fewer keys.
    """
    count = min(count, len(keys_MD))
    block = max(1, _BLOCK_ELEMENTS // len(keys_MD))
    similarities, indices = [], []
    for first in range(0, len(queries_ND), block):
        similar_BM = queries_ND[first : first + block] @ keys_MD.T
        if count == 1:
            nearest_BK = similar_BM.argmax(1)[:, None]
        else:
            nearest_BK = np.sort(np.argpartition(-similar_BM, count - 1, axis=1)[:, :count], axis=1)
            order_BK = np.argsort(-np.take_along_axis(similar_BM, nearest_BK, 1), axis=1, kind="stable")
            nearest_BK = np.take_along_axis(nearest_BK, order_BK, 1)
        indices.append(nearest_BK)
        similarities.append(np.take_along_axis(similar_BM, nearest_BK, 1))
    return np.concatenate(similarities), np.concatenate(indices)


@dataclass(kw_only=True, slots=True)
class Candidates:
    """Pairs that mining proposes, best first: each source and each target once."""

    source: np.ndarray
    target: np.ndarray
    score: np.ndarray


def mine(source_ND: np.ndarray, target_MD: np.ndarray, count: int) -> Candidates:
    """Pair sources with targets greedily by ratio margin: their cosine over the mean of both neighbourhoods' cosines.

    Source: Artetxe and Schwenk 2019 (arXiv 1811.01136), section 3.1, as XTREME mines BUCC: `mine_bitext` with margin
    "ratio", retrieval "max" and 4 neighbours, google-research/xtreme third_party/utils_retrieve.py @ 4940374c9121.

    Args:
        source_ND: Of length 1.
        target_MD: Of length 1.
        count: Neighbours on each side.
    """
    forward_NK, targets_NK = neighbours(source_ND, target_MD, count)
    backward_MK, sources_MK = neighbours(target_MD, source_ND, count)
    around_N, around_M = forward_NK.mean(1), backward_MK.mean(1)
    margin_NK = forward_NK / ((around_N[:, None] + around_M[targets_NK]) / 2)
    margin_MK = backward_MK / ((around_M[:, None] + around_N[sources_MK]) / 2)
    best_N, best_M = margin_NK.argmax(1), margin_MK.argmax(1)
    rows_N, rows_M = np.arange(len(source_ND)), np.arange(len(target_MD))
    source = np.concatenate([rows_N, sources_MK[rows_M, best_M]])
    target = np.concatenate([targets_NK[rows_N, best_N], rows_M])
    score = np.concatenate([margin_NK[rows_N, best_N], margin_MK[rows_M, best_M]])
    kept, seen_source, seen_target = [], set(), set()
    for pair in np.argsort(-score, kind="stable").tolist():
        if source[pair] not in seen_source and target[pair] not in seen_target:
            seen_source.add(source[pair])
            seen_target.add(target[pair])
            kept.append(pair)
    return Candidates(source=source[kept], target=target[kept], score=score[kept])
