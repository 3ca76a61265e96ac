"""BLEU and chrF beside sacrebleu's own scores of whole corpora."""

import random
import sys
from collections.abc import Sequence

import numpy as np
import pytest
import sacrebleu

from xlmrxl_train import metrics
from xlmrxl_train.errors import ConfigError

OFFICIAL = {"bleu": sacrebleu.corpus_bleu, "chrf": sacrebleu.corpus_chrf}
WORDS = "The the dog, sleeps under table. (3.5%) 北京 на столе ปลา it's “quoted” 1,000".split()


def corpus(seed: int, size: int) -> tuple[list[str], list[str]]:
    draw = random.Random(seed)
    references = [" ".join(draw.choices(WORDS, k=draw.randint(1, 15))) for _ in range(size)]
    predictions = [
        " ".join(word for word in text.split() if draw.random() < 0.8) + draw.choice(["", " extra .", " "])
        for text in references
    ]
    return predictions, references


def score(name: str, predictions: Sequence[str], references: Sequence[str]) -> float:
    metric = metrics.load(name)
    return metric.fold(metric.statistics(predictions, references))


@pytest.mark.parametrize("name", OFFICIAL)
@pytest.mark.parametrize("seed", range(5))
def test_a_corpus_scores_as_sacrebleu_says(name: str, seed: int) -> None:
    predictions, references = corpus(seed, size=1 + 40 * seed)
    expected = OFFICIAL[name](predictions, [references]).score
    assert 100 * score(name, predictions, references) == pytest.approx(expected, abs=1e-9)
    assert 0 < expected < 100


@pytest.mark.parametrize("name", OFFICIAL)
@pytest.mark.parametrize(
    ("predictions", "references"),
    [
        ([""], ["a dog"]),
        (["a dog"], [""]),
        ([""], [""]),
        (["a b"], ["a b"]),  # too short for 4 words: BLEU is 0
        (["a b c d"], ["x y z w"]),
        (["a b c d e"], ["a b c d e"]),
        (["wrong words here now", "a b c d"], ["a b c d", "a b c d e f"]),
    ],
)
def test_corners(name: str, predictions: list[str], references: list[str]) -> None:
    expected = OFFICIAL[name](predictions, [references]).score
    assert 100 * score(name, predictions, references) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", OFFICIAL)
def test_any_choice_of_rows_scores_as_the_corpus_of_their_sentences(name: str) -> None:
    """What the bootstrap draws: some sentences several times, others not at all."""
    predictions, references = corpus(9, size=60)
    metric = metrics.load(name)
    rows = metric.statistics(predictions, references)
    drawn = np.random.default_rng(0).integers(0, 60, 60)
    expected = OFFICIAL[name]([predictions[i] for i in drawn], [[references[i] for i in drawn]]).score
    assert 100 * metric.fold(rows[drawn]) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", OFFICIAL)
def test_without_sacrebleu_it_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, f"xlmrxl_train.metrics.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "sacrebleu", None)  # as where it is not installed
    with pytest.raises(ConfigError) as caught:
        metrics.load(name)
    assert str(caught.value) == (
        f"dataset.metrics needs sacrebleu for {name}, got no such package. "
        "Install it with pip install 'xlmrxl_train[translation]'."
    )
