"""token-classification against transformers' pipeline on the same weights, on long texts, and on lists of words."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import transformers

from tests.inference.folders import saved
from xlmrxl_train import pipeline
from xlmrxl_train.config import DatasetConfig, TokenClassificationConfig
from xlmrxl_train.data.examples import Row
from xlmrxl_train.errors import ConfigError, DataError
from xlmrxl_train.inference.base import Pipeline
from xlmrxl_train.inference.rows import Features, collate, encode_each, example_of
from xlmrxl_train.tasks import make_task

TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
TEXTS = ["hello world, how are you?", "thanks ß fine\tfriend are", "how", "you are fine thanks hello how abc world xyz"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tagger."""
    folder = tmp_path_factory.mktemp("tags")
    return saved(folder, "TokenClassification", id2label=dict(enumerate(TAGS)), initializer_range=0.4)


@pytest.fixture(scope="module")
def ours(folder: Path) -> Pipeline:
    """Our pipeline."""
    return pipeline("ner", folder, device=-1)


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "max", "average"])
@pytest.mark.parametrize("ignore", [["O"], []])
def test_it_answers_as_transformers_does(strategy: str, ignore: list[str], ours: Pipeline, folder: Path) -> None:
    theirs = transformers.pipeline("token-classification", model=str(folder), device=-1)
    options: dict[str, Any] = {"aggregation_strategy": strategy, "ignore_labels": ignore}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that words are guessed at blanks
        reference = [theirs(text, **options) for text in TEXTS]
    assert sum(map(len, reference)) > 5
    for mine, other in zip(ours(TEXTS, **options), reference, strict=True):
        assert len(mine) == len(other)
        for one, wanted in zip(mine, other, strict=True):
            assert one["score"] == pytest.approx(float(wanted["score"]), abs=1e-4)
            if strategy in ("first", "max", "average"):  # transformers runs the words of an entity together
                one["word"], wanted["word"] = (entry["word"].replace(" ", "") for entry in (one, wanted))
            assert {**one, "score": 0} == {**wanted, "score": 0}
    alone, among_others = ours(TEXTS[0], **options), ours(TEXTS, **options)[0]
    assert [entry["word"] for entry in alone] == [entry["word"] for entry in among_others]


def test_words_of_a_group_are_kept_apart(ours: Pipeline) -> None:
    groups = ours(TEXTS[0], aggregation_strategy="first", ignore_labels=[])
    assert [group["word"] for group in groups] == [TEXTS[0][group["start"] : group["end"]] for group in groups]
    assert any(" " in group["word"] for group in groups)


def test_a_long_text_is_read_to_its_end(ours: Pipeline) -> None:
    text = "hello world how are you fine thanks " * 20
    tokens = ours(text, ignore_labels=[])
    assert [token["index"] for token in tokens] == list(range(1, 141))
    assert text[tokens[-1]["start"] : tokens[-1]["end"]] == "thanks"
    begin = ours(text[: tokens[61]["end"]], ignore_labels=[])
    assert [token["entity"] for token in begin] == [token["entity"] for token in tokens[:62]]
    assert len(ours(text, ignore_labels=[], truncation=True)) == 62
    assert len(ours("abcdefgh" * 20, ignore_labels=[])) >= 160  # one word of more than a sequence


def test_lists_of_words_are_tagged_as_in_training(ours: Pipeline) -> None:
    sentences = [["hello", "xyz", "world"], ["how", "​", "are", "you" * 90], ["fine"] * 80]
    task = make_task(
        TokenClassificationConfig(max_length=65),
        DatasetConfig(columns={"tokens": "tokens"}, labels=TAGS),
        ours.tokenizer,
    )
    task.labelled = False
    examples = [example_of(task, Row(id="", values={"tokens": words}, where="")) for words in sentences]
    rows = encode_each(task, examples)
    works = [
        Features(example=example, task=task, rows=features).work()
        for example, features in zip(examples, rows, strict=True)
        if isinstance(features, list)
    ]
    batch, features = collate(works)
    wanted = {item.example: item.prediction for item in task.predict(ours.run_batch(batch, task), batch, features)}
    answers = ours(sentences, is_split_into_words=True, ignore_labels=[])
    for number, (answer, words) in enumerate(zip(answers, sentences, strict=True)):
        assert [entry["word"] for entry in answer] == words
        assert [entry["entity"] for entry in answer] == wanted[number]
        assert [" ".join(words)[entry["start"] : entry["end"]] for entry in answer] == words
    alone = ours(sentences[0], is_split_into_words=True, ignore_labels=[])
    assert [entry["entity"] for entry in alone] == wanted[0]
    groups = ours(sentences[2], is_split_into_words=True, ignore_labels=[], aggregation_strategy="simple")
    assert " ".join(group["word"] for group in groups) == " ".join(sentences[2])


@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        (
            [["a"], []],
            {"is_split_into_words": True},
            r"input 2: token-classification with is_split_into_words must",
        ),
        ([["a", 1]], {"is_split_into_words": True}, r"at least one, got \['a', 1\]\. Mend or remove the input\."),
        ([["a"]], {}, r"input 1: token-classification must have a text, got \['a'\]"),
    ],
)
def test_a_wrong_input_is_named(value: Any, options: dict[str, Any], message: str, ours: Pipeline) -> None:
    with pytest.raises(DataError, match=message):
        ours(value, **options)
    with pytest.raises(ConfigError, match=r"aggregation_strategy must be none \| simple \| first .*, got 'last'\. Ch"):
        ours("a", aggregation_strategy="last")
    with pytest.raises(ConfigError, match="ignore_labels must be a list of texts, got 'O'"):
        ours("a", ignore_labels="O")
