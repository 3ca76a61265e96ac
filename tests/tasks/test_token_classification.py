"""Words and tags: how sentences are encoded, cut, joined again, and what is said about wrong rows."""

import random
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xlmrxl_train import load_config
from xlmrxl_train.config import DatasetConfig, TokenClassificationConfig
from xlmrxl_train.data.examples import Batch, Feature, Row, SentencePlace
from xlmrxl_train.data.sources import open_source
from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.errors import DataError
from xlmrxl_train.model import ModelOutput, XLMRobertaXLConfig, XLMRobertaXLForTokenClassification
from xlmrxl_train.session import SAMPLE_TOKENIZER
from xlmrxl_train.tasks import Prediction
from xlmrxl_train.tasks.labels import IGNORED
from xlmrxl_train.tasks.token_classification import TokenClassification, split

TOKENIZER = Tokenizer.from_path(SAMPLE_TOKENIZER)
LABELS = ["O", "B-PER", "I-PER"]


def task(max_length: int = 64, long: str = "split", **dataset: Any) -> TokenClassification:
    given_ = {"kind": "token_classification", "columns": {"tokens": "words", "tags": "ner"}, "labels": LABELS} | dataset
    config = TokenClassificationConfig(max_length=max_length, long=long)
    return TokenClassification(config, DatasetConfig(name="toy", **given_), TOKENIZER)


def row(tokens: object, tags: object = None, where: str = "f.conll:3") -> Row:
    return Row(id="0", values={"tokens": tokens, "tags": tags}, where=where)


def encoded(one: TokenClassification, *rows: Row) -> list[list[Feature]]:
    return one.encode(list(one.examples(rows)))


def pieces(word: str) -> list[int]:
    return TOKENIZER.encode(word)[1:-1]


def perfect(one: TokenClassification, batch: Batch) -> ModelOutput:
    """Return the output of a model that knows the targets."""
    labels = batch.inputs["labels"]
    logits = torch.nn.functional.one_hot(labels.clamp(min=0), len(one.labels.names)).float()
    logits[labels == IGNORED, -1] = 9.0  # what is read beside first sub-words would show
    return ModelOutput(logits=logits)


def predicted(one: TokenClassification, groups: list[list[Feature]], shuffle: int = 0) -> list[Prediction]:
    """Predict with a perfect model, the sequences in any order."""
    rows = [(feature, (0, example)) for example, group in enumerate(groups) for feature in group]
    random.Random(shuffle).shuffle(rows)
    features, places = [feature for feature, _ in rows], [place for _, place in rows]
    batch = one.collate(features, places, draw=0)
    return sorted(one.predict(perfect(one, batch), batch, features), key=lambda item: item.example)


# How sentences are encoded ---------------------------------------------------------------------------------------


def test_the_first_sub_word_of_each_word_has_its_tag() -> None:
    one, words = task(), ["The", "grandmother", "'s", "Boot"]
    [[feature]] = encoded(one, row(words, ["O", "B-PER", "I-PER", "O"]))
    expected = [TOKENIZER.bos_token_id]
    starts = []
    for word in words:
        starts.append(len(expected))
        expected += pieces(word)
    assert feature.input_ids == [*expected, TOKENIZER.eos_token_id]
    assert max(len(pieces(word)) for word in words) > 1
    labels = one.collate([feature], [(0, 0)], draw=0).inputs["labels"].tolist()
    assert [labels[start] for start in starts] == [0, 1, 2, 0]
    assert all(label == IGNORED for place, label in enumerate(labels) if place not in starts)


def check_a_word_without_a_sub_word(one: TokenClassification, word: str) -> None:
    a, none, b = (ids[1:-1] for ids in one.tokenizer.encode_batch(["a", word, "b"]))
    assert none == []
    [[feature]] = encoded(one, row(["a", word, "b"], ["O", "B-PER", "O"]))
    assert feature.input_ids == [0, *a, TOKENIZER.unk_token_id, *b, 2]
    [prediction] = predicted(one, [[feature]])
    assert prediction.prediction == prediction.reference == ["O", "B-PER", "O"]


def test_a_word_without_a_sub_word_keeps_its_tag() -> None:
    check_a_word_without_a_sub_word(task(), "")


def test_words_without_a_sub_word_in_the_vocabulary_of_xlm_r(shared_data: Path) -> None:
    one = task()
    one.tokenizer = Tokenizer.from_path(shared_data / "tokenizer" / "xlmr" / "tokenizer.json.gz")
    for word in ("\u00a0", "\u200b", "\u200d", " ", "\u3000", "\ufeff"):
        check_a_word_without_a_sub_word(one, word)


def test_a_word_longer_than_the_window_becomes_one_unknown_piece() -> None:
    one, long = task(max_length=8), "x1y2z3" * 10
    assert len(pieces(long)) > 5
    groups = encoded(one, row(["a", long, "b"], ["O", "B-PER", "I-PER"]))
    assert [feature.input_ids for feature in groups[0]] == [[0, *pieces("a"), 3, *pieces("b"), 2]]
    assert predicted(one, groups)[0].prediction == ["O", "B-PER", "I-PER"]


def test_labels_are_words_mapped_words_or_numbers() -> None:
    one = task(label_values={"PERSON": "B-PER"})
    [example] = one.examples([row(["a", "b", "c", "d"], ["O", "PERSON", 2, "1"])])
    assert example.values["tags"] == [0, 1, 2, 1]


# Long sentences --------------------------------------------------------------------------------------------------


def test_sentences_are_cut_where_xtreme_cuts_them() -> None:
    """Worked by hand from `panx_tokenize_preprocess`: a word begins a row where it would not fit in 5 sub-words."""
    assert split([2, 2, 2, 5, 1, 4, 1], 5) == [(0, 2), (2, 3), (3, 4), (4, 6), (6, 7)]
    assert split([5], 5) == [(0, 1)]
    assert split([1, 1, 1, 1, 1], 5) == [(0, 5)]
    assert split([1, 1, 1, 1, 1, 1], 5) == [(0, 5), (5, 6)]


WORDS = st.sampled_from(
    ["a", "Das", "Mädchen", "grandmother", "นอน", "睡觉", "पढ़ती", "x1y2z3" * 8, "\u00a0", "", "1,5"]
)


@settings(max_examples=60, deadline=None)
@given(
    sentences=st.lists(
        st.lists(st.tuples(WORDS, st.sampled_from(LABELS)), min_size=1, max_size=20), min_size=1, max_size=4
    ),
    max_length=st.integers(8, 24),
    shuffle=st.integers(0, 5),
)
def test_what_is_split_is_joined_again(sentences: list[Any], max_length: int, shuffle: int) -> None:
    one = task(max_length=max_length)
    rows = [row([word for word, _ in sentence], [tag for _, tag in sentence]) for sentence in sentences]
    groups = encoded(one, *rows)
    for group, sentence in zip(groups, sentences, strict=True):
        assert all(3 <= len(feature.input_ids) <= max_length - 1 for feature in group)
        assert [word for feature in group for word in feature.columns["tokens"]] == [word for word, _ in sentence]
        for feature in group:  # a word lies in one sequence
            starts = [*feature.columns["word_starts"], len(feature.input_ids) - 1]
            for word, begin, end in zip(feature.columns["tokens"], starts, starts[1:], strict=False):
                whole = pieces(word)
                assert feature.input_ids[begin:end] == (whole if 0 < len(whole) <= max_length - 3 else [3])
    for item, sentence in zip(predicted(one, groups, shuffle), sentences, strict=True):
        assert item.details["tokens"] == [word for word, _ in sentence]
        assert item.prediction == item.reference == [tag for _, tag in sentence]


def test_words_that_truncation_drops_count_as_predicted_o() -> None:
    one = task(max_length=8, long="truncate")
    words = ["a"] * 8
    room = 5 // len(pieces("a"))
    tags = ["B-PER", "I-PER"] * 4
    groups = encoded(one, row(words, tags))
    assert [len(group) for group in groups] == [1]
    [prediction] = predicted(one, groups)
    assert prediction.reference == tags and prediction.details["tokens"] == words
    assert prediction.prediction == tags[:room] + ["O"] * (8 - room)
    assert one.collate(groups[0], [(0, 0)], draw=0).num_targets == room
    assert one.encoding != task(max_length=8).encoding


def test_real_sentences_are_joined_again(shared_data: Path) -> None:
    """Chinese characters of PAN-X, whose sentences are long, and treebanks with multi-word tokens and empty nodes."""
    for name, language, split_, cut in (("panx", "zh", "validation", 50), ("udpos", "ar", "test", 50)):
        words = [f"recipe={name}", "model=tiny", f"data.root={shared_data}", "task.max_length=48"]
        config = load_config([*words, f"tokenizer.path={shared_data}/tokenizer/xlmr/tokenizer.json.gz"])
        tokenizer = Tokenizer.from_path(str(config.tokenizer.path))
        one = TokenClassification(config.task, config.dataset, tokenizer)  # type: ignore[arg-type]
        rows = list(islice(open_source(config.dataset, config.data).rows(split_, language), 400))
        groups = encoded(one, *rows)
        assert sum(len(group) > 1 for group in groups) > cut
        assert max(len(feature.input_ids) for group in groups for feature in group) <= 47
        for item, written in zip(predicted(one, groups), rows, strict=True):
            assert item.details["tokens"] == written.values["tokens"]
            assert item.prediction == item.reference == written.values["tags"]


# Batches ---------------------------------------------------------------------------------------------------------


def model(one: TokenClassification) -> XLMRobertaXLForTokenClassification:
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = XLMRobertaXLConfig(vocab_size=len(TOKENIZER), **shape, **one.model_options())
    return XLMRobertaXLForTokenClassification(config).eval()


def test_the_batch_counts_targets_as_the_model_does() -> None:
    one = task(max_length=10)
    groups = encoded(
        one, row(["The", "girl", "reads", "books", "today"], ["O", "B-PER", "O", "O", "O"]), row(["x"], ["O"])
    )
    assert len(groups[0]) > 1
    features = [feature for group in groups for feature in group]
    places = [(0, example) for example, group in enumerate(groups) for _ in group]
    batch = one.collate(features, places, draw=0)
    output = model(one)(**batch.inputs)
    assert output.num_targets.item() == batch.num_targets == 6
    assert batch.num_tokens == sum(len(feature.input_ids) for feature in features)
    predictions = one.predict(output, batch, features)
    assert [(item.example, len(item.prediction)) for item in predictions] == [(0, 5), (1, 1)]
    alone = one.collate(groups[1], [(0, 1)], draw=0)
    assert one.predict(model_output := model(one)(**alone.inputs), alone, groups[1])[0].details == {"tokens": ["x"]}
    assert model_output.logits.shape == (len(groups[1][0].input_ids), 3)


def test_a_batch_without_targets_has_a_gradient_of_zero_everywhere() -> None:
    one = task()
    empty, network = one.empty_batch(), model(one)
    assert empty.num_targets == 0
    network(**empty.inputs).loss_sum.backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert all(gradient is not None and not gradient.any() for gradient in gradients.values())


def test_rows_without_gold_are_predicted() -> None:
    one = task(max_length=10)
    one.labelled = False
    words = ["The", "girl", "reads", "books", "today"]
    groups = encoded(one, row(words), row(["x"], ["no tag of this set"]))
    assert len(groups[0]) > 1
    features = [feature for group in groups for feature in group]
    batch = one.collate(features, [(0, 0)] * len(groups[0]) + [(0, 1)], draw=0)
    assert batch.num_targets == 0
    first, second = one.predict(model(one)(**batch.inputs), batch, features)
    assert first.reference is None and len(first.prediction) == 5 and set(first.prediction) <= set(LABELS)
    assert one.describe(second) == {"prediction": second.prediction, "reference": None, "tokens": ["x"]}
    assert one.encoding != task(max_length=10).encoding


# What is said about wrong rows -----------------------------------------------------------------------------------

REMEDY = "Mend the row, map it with dataset.label_values={<written>: <label>}, or add it to dataset.labels."


@pytest.mark.parametrize("tag", ["B-LOC", "", None, -1, 3, 1.5, "PER", True, ["O"]])
def test_a_tag_outside_the_label_set_is_named_with_the_line_of_its_token(tag: object) -> None:
    where = SentencePlace("d/train.conll", 7, [8, 10, 11])
    with pytest.raises(DataError) as caught:
        list(task().examples([row(["In", "Neuhafen", "."], ["O", tag, "O"], where)]))
    assert str(caught.value) == (
        "d/train.conll:10: the tag of 'Neuhafen' must be one of O, B-PER, I-PER or a number below 3, "
        f"got {tag!r}. {REMEDY}"
    )


def test_without_lines_the_token_is_counted() -> None:
    with pytest.raises(
        DataError, match=r"^team/ner/train row 4, token 2: the tag of 'b' must be one of O, B-PER, I-PER"
    ):
        list(task().examples([row(["a", "b"], ["O", "X"], "team/ner/train row 4")]))


@pytest.mark.parametrize("tokens", [None, [], "a b", ["a", 1], ["a", None], 5])
def test_words_must_be_a_list_of_texts(tokens: object) -> None:
    with pytest.raises(DataError) as caught:
        list(task().examples([row(tokens, ["O"])]))
    assert str(caught.value) == (
        f"f.conll:3: column 'words' must hold a list of words, at least one, got {tokens!r}. "
        "Mend the row, or map another column with dataset.columns.tokens=<column>."
    )


@pytest.mark.parametrize(
    ("tags", "found"), [(None, "None"), (["O"], "1: ['O']"), (["O"] * 3, "3: ['O', 'O', 'O']"), ("OO", "'OO'")]
)
def test_each_word_needs_a_tag(tags: object, found: str) -> None:
    with pytest.raises(DataError) as caught:
        list(task().examples([row(["a", "b"], tags)]))
    assert str(caught.value) == (
        f"f.conll:3: column 'ner' must hold a list of 2 tags, one per word, got {found}. "
        "Mend the row, or map another column with dataset.columns.tags=<column>."
    )
