"""Rows, windows, targets and answers of question answering."""

import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xlmrxl_train import metrics
from xlmrxl_train.config import DatasetConfig, FilesConfig, FileSet, QuestionAnsweringConfig
from xlmrxl_train.data.corpus import Corpus, Part, open_corpus
from xlmrxl_train.data.examples import Feature, Row
from xlmrxl_train.data.sources import FileSource
from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.errors import ConfigError, DataError
from xlmrxl_train.model import ModelOutput, XLMRobertaXLConfig, XLMRobertaXLForQuestionAnswering
from xlmrxl_train.session import SAMPLE_TOKENIZER
from xlmrxl_train.tasks.question_answering import NO_TARGET, QuestionAnswering, language_of_answer
from xlmrxl_train.tasks.spans import Alignment

CONTEXT = "The old man reads a book in the garden. The girl sees two dogs and a cat near the river."
QUESTION = "Who reads a book?"
MAN = {"text": ["The old man"], "answer_start": [0]}
SHAPE = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_path(SAMPLE_TOKENIZER)


def task(tokenizer: Tokenizer, max_length: int = 384, stride: int = 128, **dataset) -> QuestionAnswering:
    settings = {
        "name": "toy",
        "kind": "question_answering",
        "columns": {"context": "passage", "question": "q", "answers": "gold"},
        "languages": ["en"],
    }
    config = QuestionAnsweringConfig(max_length=max_length, stride=stride)
    return QuestionAnswering(config, DatasetConfig(**(settings | dataset)), tokenizer)


def row(answers: object = MAN, context: object = CONTEXT, question: object = QUESTION, language: str = "en") -> Row:
    values = {"context": context, "question": question, "answers": answers}
    where = "f.json data[0].paragraphs[3].qas[1]"
    return Row(id="q1", values=values, where=where, language=language)


def answer(text: str, context: str = CONTEXT) -> dict[str, list]:
    return {"text": [text], "answer_start": [context.index(text)]}


def features_of(one: QuestionAnswering, *rows: Row) -> list[list[Feature]]:
    return one.encode(list(one.examples(rows)))


PLACE = r"^f\.json data\[0\]\.paragraphs\[3\]\.qas\[1\]: "


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (
            {"text": ["book"], "answer_start": [5]},
            r"expected the answer 'book' at character 5 of its context, found 'ld m'; the context has it at 20\. "
            r"Mend the answer or its answer_start\.$",
        ),
        (
            {"text": ["The old man", "horse"], "answer_start": [0, 4]},
            r"expected the answer 'horse' at character 4 of its context, found 'old m'; the context does not have it\.",
        ),
        (
            {"text": ["river."], "answer_start": [-6]},
            r".* at character -6 of its context, found ''; the context has it",
        ),
        ({"text": [""], "answer_start": [3]}, r"expected the answer '' at character 3 of its context, found ''; the"),
        ({"text": [" "], "answer_start": [3]}, r"expected the answer ' ' at character 3 .*; the context does not have"),
        ({"text": [], "answer_start": []}, r"expected at least one answer, since the split trains or is scored, found"),
        (None, r"expected at least one answer, since the split trains or is scored, found none\. Add it, or take the"),
        ("The old man", r'expected answers as \{"text": \["\.\.\."\], "answer_start": \[0\]\}, one start per text, fo'),
        (
            [{"text": "The", "answer_start": 0}],
            r".* found \[\{'text': 'The', 'answer_start': 0\}\]\. Mend the row, or map",
        ),
        ({"text": ["The"], "answer_start": ["0"]}, r"expected answers as .* dataset\.columns\.answers=<column>\.$"),
        ({"text": ["The"], "answer_start": [True]}, r"expected answers as "),
        ({"text": ["The"], "answer_start": [0, 1]}, r"expected answers as .*, one start per text, found "),
        ({"text": ["The"]}, r"expected answers as "),
    ],
)
def test_wrong_answers_are_named_with_their_place(tokenizer, answers, message) -> None:
    with pytest.raises(DataError, match=PLACE + message):
        list(task(tokenizer).examples([row(answers)]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"question": "  "},
            r"column 'q' must hold text, got '  '\. Mend the row, or map another column with dataset\.",
        ),
        ({"question": None}, r"column 'q' must hold text, got None\. .*dataset\.columns\.question=<column>\.$"),
        ({"context": ""}, r"column 'passage' must hold text, got ''\. .*dataset\.columns\.context=<column>\.$"),
    ],
)
def test_missing_text_is_named_with_its_place(tokenizer, wrong, message) -> None:
    with pytest.raises(DataError, match=PLACE + message):
        list(task(tokenizer).examples([row(**wrong)]))


ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 99), st.floats(), st.sampled_from(["The", "a book", "", " "])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["text", "answer_start"]), inner, max_size=2)
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(ANYTHING, st.one_of(ANYTHING, st.text(max_size=30)), st.one_of(ANYTHING, st.text(max_size=30)))
def test_a_row_becomes_windows_or_one_line_that_names_it(tokenizer, answers, context, question) -> None:
    try:
        [windows] = features_of(task(tokenizer), row(answers, context, question))
        assert windows
    except DataError as error:
        assert str(error).startswith("f.json data[0].paragraphs[3].qas[1]: ") and "\n" not in str(error)


def test_text_without_tokens_is_named(tokenizer) -> None:
    """As XLM-R's rules drop zero-width characters; the sample's tokenizer has a token for everything."""
    one = task(tokenizer)
    [example] = one.examples([row()])
    with pytest.raises(
        DataError, match=PLACE + "column 'passage' must hold text that the tokenizer has tokens for, got"
    ):
        one._windows(example, [0, 5, 2], [], Alignment(CONTEXT, []))
    with pytest.raises(DataError, match=PLACE + "expected an answer that the tokenizer has tokens for, found 'The old"):
        one._windows(example, [0, 5, 2], [7, 8], Alignment(CONTEXT, [(12, 17), (18, 19)]))


def test_a_short_context_is_one_window_and_the_sequence_is_the_pairs(tokenizer) -> None:
    [[feature]] = features_of(task(tokenizer), row(answer("a book")))
    assert feature.input_ids == tokenizer.encode(QUESTION, CONTEXT)
    start, end = feature.columns["start"], feature.columns["end"]
    assert tokenizer.decode(feature.input_ids[start : end + 1]) == "a book"


def test_a_long_context_is_several_windows_under_a_whole_question(tokenizer) -> None:
    one = task(tokenizer, max_length=40, stride=8)
    [windows] = features_of(one, row(answer("two dogs")))
    question = tokenizer.encode(QUESTION)
    context = tokenizer.encode(CONTEXT)[1:-1]
    room = 40 - len(question) - 2
    assert len(windows) == -(-(len(context) - room) // 8) + 1 and len(windows) > 2
    gold = tokenizer.encode("two dogs")[2:-1]  # without the lone word start, which has no character
    holding = 0
    for index, feature in enumerate(windows):
        part = context[index * 8 : index * 8 + room]
        assert feature.input_ids == [*question, 2, *part, 2] and len(feature.input_ids) <= 40
        start, end = feature.columns["start"], feature.columns["end"]
        if any(part[place : place + len(gold)] == gold for place in range(len(part))):
            holding += 1
            assert feature.input_ids[start : end + 1] == gold
        else:
            assert (start, end) == (0, 0)  # <s>
    assert 0 < holding < len(windows)


def test_what_windows_have_in_common_is_stored_once(tokenizer) -> None:
    [windows] = features_of(task(tokenizer, max_length=40, stride=8), row())
    first, *others = [feature.columns for feature in windows]
    assert first["context"] == CONTEXT and first["answers"] == ["The old man"] and first["language"] == "en"
    names = ("question", "context", "begins", "ends", "answers", "language")
    assert all(not columns[name] for columns in others for name in names)
    assert all(columns.keys() == first.keys() for columns in others)


def test_the_first_of_several_golds_trains(tokenizer) -> None:
    golds = {"text": ["a cat", "The old man"], "answer_start": [CONTEXT.index("a cat"), 0]}
    [[feature]] = features_of(task(tokenizer), row(golds))
    assert tokenizer.decode(feature.input_ids[feature.columns["start"] : feature.columns["end"] + 1]) == "a cat"
    assert feature.columns["answers"] == ["a cat", "The old man"]


def test_a_question_that_leaves_no_room_is_an_error(tokenizer) -> None:
    one = task(tokenizer, max_length=24, stride=8)
    tokens = len(tokenizer.encode("the book " * 8)) - 2
    with pytest.raises(
        DataError,
        match=PLACE
        + f"the question has {tokens} tokens, so that of task.max_length = 24 only {20 - tokens} are left for "
        r"the context, fewer than task\.stride = 8\. Raise task\.max_length, lower task\.stride, or shorten the",
    ):
        features_of(one, row(question="the book " * 8))
    assert features_of(one, row(question="the book " * 3))


def model_of(one: QuestionAnswering) -> XLMRobertaXLForQuestionAnswering:
    torch.manual_seed(0)
    config = XLMRobertaXLConfig(vocab_size=len(one.tokenizer), **SHAPE, **one.model_options())
    return XLMRobertaXLForQuestionAnswering(config).eval()


def batch_of(one: QuestionAnswering, *rows: Row):
    """Windows of several examples, longest first as a corpus has them."""
    placed = [(feature, (0, example)) for example, windows in enumerate(features_of(one, *rows)) for feature in windows]
    placed.sort(key=lambda item: -len(item[0].input_ids))
    features = [feature for feature, _ in placed]
    return one.collate(features, [place for _, place in placed], draw=0), features


def test_the_batch_counts_targets_as_the_model_does(tokenizer) -> None:
    one = task(tokenizer, max_length=40, stride=8)
    batch, features = batch_of(one, row(), row(answer("a cat"), question="Who sees a cat?"))
    output = model_of(one)(**batch.inputs)
    assert output.num_targets.item() == batch.num_targets == len(features) > 4
    assert batch.num_tokens == sum(len(feature.input_ids) for feature in features)
    predictions = one.predict(output, batch, features)
    assert sorted((item.table, item.example) for item in predictions) == [(0, 0), (0, 1)]
    assert all(item.prediction in CONTEXT and item.prediction for item in predictions)
    empty = one.empty_batch()
    assert empty.num_targets == 0
    loss = model_of(one)(**empty.inputs).loss_sum
    loss.backward()
    assert torch.isfinite(loss)


def pointing(batch, features: list[Feature], places: dict[int, tuple[int, int, float]]) -> ModelOutput:
    """Logits that point at (start, end) in some of the batch's sequences, and at the question in the others."""
    starts, ends = torch.full((batch.num_tokens,), -5.0), torch.full((batch.num_tokens,), -5.0)
    begins = torch.tensor([0, *(len(feature.input_ids) for feature in features)]).cumsum(0).tolist()
    for index, begin in enumerate(begins[:-1]):
        start, end, height = places.get(index, (1, 1, 9.0))
        starts[begin + start], ends[begin + end] = height, height
    return ModelOutput(start_logits=starts, end_logits=ends)


def test_gold_logits_give_gold_answers_over_all_windows(tokenizer) -> None:
    one = task(tokenizer, max_length=40, stride=8)
    asked = [row(answer(text)) for text in ("The old man", "two dogs", "the river")]
    batch, features = batch_of(one, *asked)
    places = {
        index: (feature.columns["start"], feature.columns["end"], 3.0)
        for index, feature in enumerate(features)
        if feature.columns["start"]
    }
    predictions = sorted(one.predict(pointing(batch, features, places), batch, features), key=lambda p: p.example)
    assert [item.prediction for item in predictions] == ["The old man", "two dogs", "the river"]
    assert predictions[1].reference == {"texts": ["two dogs"], "language": "en"}
    for name in one.metrics:
        metric = metrics.load(name)
        rows = metric.statistics([item.prediction for item in predictions], [item.reference for item in predictions])
        assert metric.fold(rows) == 1.0
    shown = one.describe(predictions[1])
    assert json.loads(json.dumps(shown)) == shown
    assert list(shown) == ["question", "prediction", "reference", "best"] and shown["question"] == QUESTION
    assert shown["prediction"] == "two dogs" and shown["reference"] == ["two dogs"]
    assert shown["best"][0]["text"] == "two dogs" and shown["best"][0]["begin"] == CONTEXT.index("two dogs")
    assert len(shown["best"]) == 3 and 0 < shown["best"][2]["probability"] <= shown["best"][0]["probability"] <= 1


def test_the_higher_of_two_windows_answers(tokenizer) -> None:
    one = task(tokenizer, max_length=40, stride=8)
    batch, features = batch_of(one, row())
    last = max(range(len(features)), key=lambda index: features[index].columns["first"])
    inside = features[last].columns["prefix"]
    end_of_last = len(features[last].input_ids) - 2
    spans = {0: (features[0].columns["prefix"],) * 2 + (2.0,), last: (end_of_last, end_of_last, 4.0)}
    [found] = one.predict(pointing(batch, features, spans), batch, features)
    assert inside < end_of_last and CONTEXT.endswith(found.prediction)
    assert "The" in [item["text"] for item in found.details["best"]]


def test_windows_that_point_at_nothing_valid_give_an_empty_answer(tokenizer) -> None:
    one = task(tokenizer)
    one.n_best = 1
    batch, features = batch_of(one, row())
    [found] = one.predict(pointing(batch, features, {}), batch, features)
    assert found.prediction == "" and found.details == {"question": QUESTION, "best": []}


def test_rows_without_answers_can_be_predicted_but_not_scored(tokenizer) -> None:
    one = task(tokenizer)
    one.labelled = False
    batch, features = batch_of(one, row({"text": [], "answer_start": []}), row(None))
    assert {feature.columns["start"] for feature in features} == {NO_TARGET} and batch.num_targets == 0
    output = model_of(one)(**batch.inputs)
    assert output.num_targets.item() == 0 and torch.isfinite(output.loss_sum)
    for item in one.predict(output, batch, features):
        assert item.reference is None and item.prediction in CONTEXT
        assert one.describe(item)["reference"] is None


def squad_file(path, *questions: tuple[str, dict[str, list]]) -> None:
    qas = [
        {
            "id": id_,
            "question": QUESTION,
            "answers": [
                {"text": text, "answer_start": start}
                for text, start in zip(golds["text"], golds["answer_start"], strict=True)
            ],
        }
        for id_, golds in questions
    ]
    path.write_text(json.dumps({"data": [{"paragraphs": [{"context": CONTEXT, "qas": qas}]}]}), encoding="utf-8")


def corpus_of(one: QuestionAnswering, folder) -> Corpus:
    columns = {"context": "context", "question": "question", "answers": "answers"}
    files = FilesConfig(test=[FileSet(path="q.json")])
    dataset = DatasetConfig(name="toy", languages=["en"], columns=columns, id_column="id", files=files)
    source = FileSource(dataset, files, folder, "files")
    parts = [Part(split="test", language="en", source=source, encoder=one)]
    return open_corpus("test", parts, one.tokenizer.fingerprint, rows=Part.rows, limit=None, cache=folder / "cache")


def test_windows_survive_the_cache(tokenizer, tmp_path) -> None:
    one = task(tokenizer, max_length=40, stride=8)
    squad_file(tmp_path / "q.json", ("a", MAN), ("b", answer("a cat")))
    corpus = corpus_of(one, tmp_path)
    features, places = corpus.features([1, 0])
    batch = one.collate(features, places, draw=0)
    predictions = one.predict(model_of(one)(**batch.inputs), batch, features)
    assert [(item.example, item.reference["texts"]) for item in predictions] == [(0, ["The old man"]), (1, ["a cat"])]
    assert corpus.tables[0].ids == ["a", "b"]
    unlabelled = task(tokenizer, max_length=40, stride=8)
    unlabelled.labelled = False
    again = corpus_of(unlabelled, tmp_path)
    assert again.fingerprint != corpus.fingerprint and again.tables[0].feature(0).columns["answers"] == []


def test_a_doubled_id_and_a_missing_span_are_found_when_the_file_is_read(tokenizer, tmp_path) -> None:
    one = task(tokenizer)
    squad_file(tmp_path / "q.json", ("a", MAN), ("a", MAN))
    with pytest.raises(
        DataError,
        match=r"q\.json data\[0\]\.paragraphs\[0\]\.qas\[1\]: expected an id of its own in column 'id', found 'a'",
    ):
        corpus_of(one, tmp_path)
    squad_file(tmp_path / "q.json", ("a", MAN), ("b", {"text": ["man"], "answer_start": [7]}))
    with pytest.raises(
        DataError,
        match=r"q\.json data\[0\]\.paragraphs\[0\]\.qas\[1\]: expected the answer 'man' at character 7 of its",
    ):
        corpus_of(one, tmp_path)


def test_a_metric_without_rules_for_a_language_is_refused_before_training(tokenizer) -> None:
    with pytest.raises(
        ConfigError, match=r"^dataset\.metrics: mlqa_f1 must have answers in ar, de, en, .*, got fi\. Use squad_f1 and"
    ):
        task(tokenizer, metrics=["squad_f1", "mlqa_f1"], languages=["en", "fi"])
    assert task(tokenizer, metrics=["mlqa_f1"], languages=["de-en", "zh-hi"]).metrics == ["mlqa_f1"]
    assert task(tokenizer, languages=["fi"]).metrics == ["squad_f1", "squad_exact_match"]


def test_answers_are_in_the_language_of_the_context() -> None:
    assert [language_of_answer(code) for code in ("de-en", "zh", "en-de")] == ["de", "zh", "en"]
