"""Nearest sentences and mined pairs, against all similarities at once and against XTREME's rule worked in the open."""

import numpy as np
import pytest

from xlmrxl_train.tasks import nearest
from xlmrxl_train.tasks.nearest import mine, neighbours, normalised


@pytest.fixture
def vectors() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    source = random.normal(size=(60, 8))
    target = np.concatenate([source[:40] + 0.3 * random.normal(size=(40, 8)), random.normal(size=(30, 8))])
    return normalised(source), normalised(target)


@pytest.mark.parametrize("count", [1, 4, 100])
def test_neighbours_are_those_of_the_whole_matrix_in_any_blocks(vectors, count, monkeypatch) -> None:
    source, target = vectors
    monkeypatch.setattr(nearest, "_BLOCK_ELEMENTS", 7 * len(target))
    similar, index = neighbours(source, target, count)
    whole = source @ target.T
    expected = np.argsort(-whole, axis=1, kind="stable")[:, :count]
    assert index.tolist() == expected.tolist()
    assert np.allclose(similar, np.take_along_axis(whole, expected, 1), atol=1e-6)


def test_of_equal_similarities_the_lower_index_wins() -> None:
    keys = normalised(np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]))
    for count in (1, 2):
        assert neighbours(normalised(np.array([[2.0, 0.0]])), keys, count)[1].tolist() == [[1, 2][:count]]
    assert normalised(np.zeros((1, 2))).tolist() == [[0.0, 0.0]]


def test_mining_is_xtremes_rule(vectors) -> None:
    """Element by element, with loops: margin of each candidate, best of each side, greedy from the best score."""
    source, target = vectors
    similar = source @ target.T
    k = 4
    around = [np.sort(row)[-k:].mean() for row in similar], [np.sort(column)[-k:].mean() for column in similar.T]

    def margin(i: int, j: int) -> float:
        return similar[i, j] / ((around[0][i] + around[1][j]) / 2)

    pairs = []
    for i in range(len(source)):
        j = max(np.argsort(-similar[i])[:k], key=lambda j: margin(i, j))
        pairs.append((margin(i, j), i, int(j)))
    for j in range(len(target)):
        i = max(np.argsort(-similar[:, j])[:k], key=lambda i: margin(i, j))
        pairs.append((margin(i, j), int(i), j))
    expected, seen_i, seen_j = [], set(), set()
    for score, i, j in sorted(pairs, key=lambda pair: -pair[0]):
        if i not in seen_i and j not in seen_j:
            expected.append((i, j, score))
            seen_i.add(i)
            seen_j.add(j)
    found = mine(source, target, k)
    assert list(zip(found.source.tolist(), found.target.tolist(), strict=True)) == [(i, j) for i, j, _ in expected]
    assert np.allclose(found.score, [score for _, _, score in expected])
    assert sum(i == j for i, j, _ in expected[:30]) == 30  # the translations come first
