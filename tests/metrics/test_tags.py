"""Entity and part-of-speech scores: golden cases worked by hand, and seqeval itself on random tags."""

import re

import pytest
import seqeval.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.scheme import IOB2

from xlmrxl_train import metrics
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.metrics.chunks import conlleval, strict_iob2, type_after_last_hyphen, type_after_prefix

pytestmark = pytest.mark.filterwarnings("ignore:.*seems not to be NE tag:UserWarning")  # seqeval, of raw tags


def score(name: str, predictions: list[list[str]], references: list[list[str]]) -> float:
    metric = metrics.load(name)
    return metric.fold(metric.statistics(predictions, references))


@pytest.mark.parametrize(
    ("tags", "entities"),
    [
        ("B-PER I-PER O B-LOC", {("PER", 0, 1), ("LOC", 3, 3)}),
        ("I-PER I-PER O", {("PER", 0, 1)}),  # no B: read all the same
        ("B-PER I-LOC", {("PER", 0, 0), ("LOC", 1, 1)}),
        ("B-PER B-PER", {("PER", 0, 0), ("PER", 1, 1)}),
        ("B-PER E-PER S-PER I-PER", {("PER", 0, 1), ("PER", 2, 2), ("PER", 3, 3)}),
        ("O I-PER", {("PER", 1, 1)}),
        ("B-a-b I-a-b", {("a-b", 0, 1)}),
        ("B-a-b I-c-b", {("a-b", 0, 0), ("c-b", 1, 1)}),
        ("B I O", {("_", 0, 1)}),
        ("O O", set()),
        (". I", {("_", -1, 1)}),  # nothing began: seqeval's entity begins before the sentence
        ("B-A O . I", {("A", 0, 0), ("_", 0, 3)}),
    ],
)
def test_conlleval_entities(tags: str, entities: set[tuple[str, int, int]]) -> None:
    assert conlleval(tags.split(), type_after_prefix) == entities


@pytest.mark.parametrize(
    ("tags", "entities"),
    [
        # Neighbours with equal tags are one entity.
        ("DET NOUN NOUN VERB", {("DET", 0, 0), ("NOUN", 1, 2), ("VERB", 3, 3)}),
        ("PROPN PROPN PUNCT", {("PROPN", 0, 1), ("PUNCT", 2, 2)}),
        ("CCONJ CCONJ SCONJ", {("CCONJ", 0, 1), ("SCONJ", 2, 2)}),
        # A tag that begins with S is an entity at each token.
        ("SCONJ SCONJ SYM SYM", {("SCONJ", 0, 0), ("SCONJ", 1, 1), ("SYM", 2, 2), ("SYM", 3, 3)}),
        ("INTJ INTJ NOUN INTJ", {("INTJ", 0, 1), ("NOUN", 2, 2), ("INTJ", 3, 3)}),
        ("X X _ _", {("X", 0, 1), ("_", 2, 3)}),
        ("B B I I", {("B", 0, 0), ("B", 1, 1), ("I", 2, 3)}),
        ("E E NOUN", {("E", 0, 0), ("E", 1, 1), ("NOUN", 2, 2)}),
        # What begins with O or "." is no entity.
        ("O OTHER . NOUN", {("NOUN", 3, 3)}),
        # The type is what follows the last hyphen.
        ("B-a-b I-c-b NOUN-b", {("b", 0, 2)}),
        ("NOUN A-NOUN", {("NOUN", 0, 1)}),
    ],
)
def test_part_of_speech_tags_as_entities(tags: str, entities: set[tuple[str, int, int]]) -> None:
    assert conlleval(tags.split(), type_after_last_hyphen) == entities


def test_one_wrong_tag_costs_the_run_it_splits() -> None:
    gold, predicted = [["DET", "NOUN", "NOUN", "VERB"]], [["DET", "NOUN", "ADJ", "VERB"]]
    # Right: DET, VERB. Predicted: DET, NOUN, ADJ, VERB. Gold: DET, NOUN NOUN, VERB.
    assert metrics.load("pos_f1").statistics(predicted, gold).tolist() == [[2, 4, 3]]
    assert score("pos_f1", predicted, gold) == pytest.approx(4 / 7)
    assert score("tag_accuracy", predicted, gold) == 3 / 4


def test_the_newer_rule_scores_parts_of_speech_otherwise() -> None:
    gold, predicted = [["NOUN", "SCONJ", "VERB", "X"]], [["NOUN", "CCONJ", "VERB", "X"]]
    # Right: NOUN, VERB, X of 4 and 4. By the newer rule CCONJ and SCONJ are both CONJ, and X after VERB is a "_".
    assert score("pos_f1", predicted, gold) == 3 / 4
    assert score("entity_f1", predicted, gold) == 1.0


def test_nothing_predicted_and_nothing_gold_scores_zero() -> None:
    for name in ("entity_f1", "entity_f1_strict", "pos_f1"):
        assert score(name, [["O", "O"]], [["O", "O"]]) == 0.0


def test_tag_accuracy_counts_tokens_not_sentences() -> None:
    assert score("tag_accuracy", [["A"], ["A", "B", "C"]], [["B"], ["A", "B", "C"]]) == 3 / 4
    assert str(score("tag_accuracy", [[]], [[]])) == "nan"


@pytest.mark.parametrize("name", ["entity_f1", "entity_f1_strict", "pos_f1", "tag_accuracy"])
def test_as_many_sentences_as_references(name: str) -> None:
    with pytest.raises(ValueError, match="argument 2 is longer"):
        metrics.load(name).statistics([["O"]], [["O"], ["O"]])


@pytest.mark.parametrize(
    ("tags", "entities"),
    [
        ("B-PER I-PER O I-LOC", {("PER", 0, 1)}),
        ("B-PER I-LOC I-PER", {("PER", 0, 0)}),
        ("B-PER B-PER I-PER", {("PER", 0, 0), ("PER", 1, 2)}),
        ("I-PER I-PER", set()),
        ("B I O-x I", {("_", 0, 1)}),
        ("B-a-b I-a-b I-b", {("a-b", 0, 1)}),
    ],
)
def test_strict_entities(tags: str, entities: set[tuple[str, int, int]]) -> None:
    assert strict_iob2(tags.split()) == entities


@pytest.mark.parametrize("tag", ["S-PER", "NOUN", "", "b-PER"])
def test_strict_refuses_other_schemes(tag: str) -> None:
    message = f"dataset.labels must be O, B-<type> and I-<type> for entity_f1_strict, got {tag!r}. Use entity_f1."
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        score("entity_f1_strict", [["O", tag]], [["O", "O"]])


def files(tags: str) -> st.SearchStrategy[list[list[tuple[str, str]]]]:
    """Sentences of (predicted, gold), half of them equal, so that entities are right now and then."""
    tag = st.sampled_from(tags.split())
    token = st.one_of(tag.map(lambda same: (same, same)), st.tuples(tag, tag))
    return st.lists(st.lists(token, min_size=1, max_size=8), min_size=1, max_size=4)


def parted(sentences: list[list[tuple[str, str]]]) -> tuple[list[list[str]], list[list[str]]]:
    return tuple([[token[side] for token in sentence] for sentence in sentences] for side in (0, 1))


@settings(deadline=None, max_examples=200)
@given(files("O B-A I-A E-A S-A B-B I-B B I E S B-a-b I-a-b I-b NOUN") | files("O . B-A I-A E-B S-B NOUN VERB"))
def test_seqeval_default(sentences: list[list[tuple[str, str]]]) -> None:
    predicted, gold = parted(sentences)
    # seqeval reads a file's first sentence otherwise than all others: make it one without entities.
    expected = seqeval.metrics.f1_score([["O"], *gold], [["O"], *predicted], zero_division=0)
    assert score("entity_f1", predicted, gold) == pytest.approx(expected, abs=1e-12)
    assert score("tag_accuracy", predicted, gold) == seqeval.metrics.accuracy_score(gold, predicted)


@settings(deadline=None, max_examples=200)
@given(files("O B-A I-A B-B I-B B I B-a-b I-a-b I-b"))
def test_seqeval_strict(sentences: list[list[tuple[str, str]]]) -> None:
    predicted, gold = parted(sentences)
    expected = 0.0
    if any(tag.startswith("B") for sentence in [*predicted, *gold] for tag in sentence):  # else seqeval divides by 0
        expected = seqeval.metrics.f1_score(gold, predicted, mode="strict", scheme=IOB2, zero_division=0)
    assert score("entity_f1_strict", predicted, gold) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=200)
@given(files("ADJ ADP AUX CCONJ SCONJ INTJ NOUN PROPN PUNCT SYM X _ O OTHER . B I E S B-a-b I-c-b NOUN-b"))
def test_seqeval_with_the_older_types(sentences: list[list[tuple[str, str]]]) -> None:
    """The installed seqeval takes the older rule's prefix and type, if they are spelt as it reads them."""
    predicted, gold = parted(sentences)

    def spelt(tag: str) -> str:  # "_" is what it calls the type of O
        return f"{tag[0]}-{tag.split('-')[-1].replace('_', 'underscore')}"

    old = [[[spelt(tag) for tag in tags] for tags in side] for side in (gold, predicted)]
    expected = seqeval.metrics.f1_score(*old, zero_division=0)
    assert score("pos_f1", predicted, gold) == pytest.approx(expected, abs=1e-12)
