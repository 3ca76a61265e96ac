"""Choices, texts and batches of multiple choice, and a run on a user's own JSON lines."""

import json
from pathlib import Path

import pytest
import torch

from xlmrxl_train import load_config, train
from xlmrxl_train.cli import main
from xlmrxl_train.config import DatasetConfig, MultipleChoiceConfig
from xlmrxl_train.data.examples import Feature, Row
from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.errors import DataError
from xlmrxl_train.model import XLMRobertaXLConfig, XLMRobertaXLForMultipleChoice
from xlmrxl_train.session import SAMPLE_TOKENIZER
from xlmrxl_train.tasks.multiple_choice import MultipleChoice

WHY, CHOICES = "Why does she read?", ["She likes books.", "The dog sleeps.", "It is late and the girl cannot sleep."]
Place = tuple[int, int]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_path(SAMPLE_TOKENIZER)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> XLMRobertaXLForMultipleChoice:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    return XLMRobertaXLForMultipleChoice(XLMRobertaXLConfig(vocab_size=len(tokenizer), **shape)).eval()


def task(tokenizer: Tokenizer, max_length: int = 128, **dataset: object) -> MultipleChoice:
    settings = {
        "name": "toy",
        "kind": "multiple_choice",
        "columns": {"context": "c", "question": "q", "choices": "answers", "label": "right"},
        "labels": ["A", "B", "C"],
    } | dataset
    return MultipleChoice(MultipleChoiceConfig(max_length=max_length), DatasetConfig(**settings), tokenizer)


def row(**values: object) -> Row:
    given = {"context": "The girl reads a book.", "question": WHY, "choices": CHOICES, "label": "A"} | values
    return Row(id="0", values=given, where="f.jsonl:3", language="en")


def features_of(one: MultipleChoice, rows: list[Row]) -> tuple[list[Feature], list[Place]]:
    """The features of rows, longest first, and whose each is, as a corpus hands them out."""
    groups = one.encode(list(one.examples(rows)))
    placed = [(feature, (0, example)) for example, group in enumerate(groups) for feature in group]
    placed.sort(key=lambda item: -len(item[0].input_ids))
    return [feature for feature, _ in placed], [place for _, place in placed]


# Rows


@pytest.mark.parametrize(("written", "expected"), [("A", 0), ("C", 2), (3, 2), ("0", 1)])
def test_labels_are_written_as_the_data_set_says(tokenizer: Tokenizer, written: object, expected: int) -> None:
    one = task(tokenizer, label_values={"3": "C", "0": "B"})
    assert next(one.examples([row(label=written)])).values["label"] == expected


@pytest.mark.parametrize("written", ["D", 0, 1, None, 1.0, True, ["A"]])
def test_an_unknown_label_is_an_error_with_its_place(tokenizer: Tokenizer, written: object) -> None:
    """Also a bare number: whether it counts from 0 or 1, the data set must say."""
    with pytest.raises(DataError, match=r"f\.jsonl:3: label must be one of A, B, C, got .*dataset\.labels as the"):
        list(task(tokenizer).examples([row(label=written)]))


def test_rows_to_skip_leave_no_example(tokenizer: Tokenizer) -> None:
    assert not list(task(tokenizer, skip_labels=["-1"]).examples([row(label=-1)]))


@pytest.mark.parametrize("choices", [CHOICES[:2], [*CHOICES, "Nobody knows."], []])
def test_another_number_of_choices_is_an_error(tokenizer: Tokenizer, choices: list[str]) -> None:
    with pytest.raises(
        DataError,
        match=r"f\.jsonl:3: column 'answers' must hold 3 choices, one per label in dataset\.labels, "
        rf"got {len(choices)}\. Mend the row, or set dataset\.labels\.",
    ):
        list(task(tokenizer).examples([row(choices=choices)]))


@pytest.mark.parametrize("choices", ["a, b, c", None, [1, 2, 3], ["a", None, "c"], {"text": []}])
def test_choices_that_are_no_list_of_texts(tokenizer: Tokenizer, choices: object) -> None:
    with pytest.raises(DataError, match=r"f\.jsonl:3: column 'answers' must hold a list of texts, .*choice1=<column>"):
        list(task(tokenizer).examples([row(choices=choices)]))


def test_a_column_per_choice(tokenizer: Tokenizer) -> None:
    columns = {"context": "c", "choice1": "x", "choice2": "y", "label": "right"}
    one = task(tokenizer, columns=columns, labels=["0", "1"])
    values = {"context": "Text.", "choice1": "First.", "choice2": "Second.", "label": 1}
    example = next(one.examples([Row(id="0", values=values, where="f.tsv:2")]))
    assert example.values == {"context": "Text.", "choices": ["First.", "Second."], "label": 1}
    with pytest.raises(DataError, match=r"f\.tsv:2: column 'y' must hold text, got None"):
        list(one.examples([Row(id="0", values=values | {"choice2": None}, where="f.tsv:2")]))


# Texts


def encoded(one: MultipleChoice, **values: object) -> list[list[int]]:
    return [feature.input_ids for feature in one.encode(list(one.examples([row(**values)])))[0]]


def test_context_and_question_stand_before_each_choice(tokenizer: Tokenizer) -> None:
    expected = [tokenizer.encode(f"The girl reads a book. {WHY}", choice) for choice in CHOICES]
    assert encoded(task(tokenizer)) == expected


@pytest.mark.parametrize(
    ("templates", "text", "pair"),
    [
        ({"text": "{context} What was the {question}?"}, "It rains. What was the cause?", "X."),
        ({"text": "{context}", "text_pair": "{question}: {choice}"}, "It rains.", "cause: X."),
        ({"text": "{{{question}}} {context}"}, "{cause} It rains.", "X."),
    ],
)
def test_a_data_set_words_its_texts(tokenizer: Tokenizer, templates: dict[str, str], text: str, pair: str) -> None:
    one = task(tokenizer, templates=templates, labels=["A"])
    assert encoded(one, context="It rains.", question="cause", choices=["X."]) == [tokenizer.encode(text, pair)]
    assert one.encoding != task(tokenizer, labels=["A"]).encoding


@pytest.mark.parametrize("template", ["{context} {question}", "{question} {context}", "{question}{context}: so"])
@pytest.mark.parametrize(
    "context", ["The girl reads a book. " * 9, "女孩读书。" * 30, "หญิงอ่านหนังสือ" * 12, "</s> a </s>" * 20]
)
def test_only_the_context_is_cut(tokenizer: Tokenizer, template: str, context: str) -> None:
    short, long = (task(tokenizer, length, templates={"text": template}) for length in (64, 512))
    for cut, whole in zip(encoded(short, context=context), encoded(long, context=context), strict=True):
        excess = len(whole) - 64
        assert len(cut) == 64 and excess > 0
        assert any(cut == whole[:begin] + whole[begin + excess :] for begin in range(65))  # in one piece
        for text in (WHY, ": so", *CHOICES):
            assert tokenizer.decode(cut).count(text) == tokenizer.decode(whole).count(text)


def test_what_may_not_be_cut_must_fit(tokenizer: Tokenizer) -> None:
    with pytest.raises(
        DataError,
        match=r"f\.jsonl:3: question and choice must fit into task\.max_length=16 tokens, got \d+ without the context, "
        r"which alone may be cut\. Raise task\.max_length, or shorten the row\.",
    ):
        encoded(task(tokenizer, 16))


# Batches


def toy_rows() -> list[Row]:
    return [
        row(label="C"),
        row(context="The dog sleeps. " * 3, label="A"),
        row(choices=["Yes.", "No.", "No."], label="B"),
        row(choices=["A book.", "A book that is long.", "A"], label="A"),
    ]


def test_scores_are_those_of_each_example_alone(tokenizer: Tokenizer, model: XLMRobertaXLForMultipleChoice) -> None:
    one = task(tokenizer)
    features, places = features_of(one, toy_rows())
    batch = one.collate(features, places, draw=0)
    with torch.no_grad():
        output = model(**batch.inputs)
    assert output.num_targets.item() == batch.num_targets == 4
    assert batch.num_tokens == sum(len(feature.input_ids) for feature in features) == len(batch.inputs["input_ids"])
    predictions = {item.example: item for item in one.predict(output, batch, features)}
    assert sorted(predictions) == [0, 1, 2, 3]
    loss = 0.0
    for example, group in enumerate(one.encode(list(one.examples(toy_rows())))):
        inputs = one.collate(group, [(0, example)] * 3, draw=0).inputs
        for name in ("choice_index", "labels"):
            del inputs[name]
        with torch.no_grad():
            alone = model(**inputs, num_choices=3).logits[0]
        item = predictions[example]
        assert item.details["scores"] == pytest.approx(alone.tolist(), abs=1e-5)
        assert item.prediction == int(alone.argmax())
        assert item.reference == group[0].columns["label"] == [2, 0, 1, 0][example]
        loss += torch.nn.functional.cross_entropy(alone, torch.tensor(item.reference)).item()
    assert output.loss_sum.item() == pytest.approx(loss, rel=1e-5)


def test_an_example_may_be_drawn_twice(tokenizer: Tokenizer, model: XLMRobertaXLForMultipleChoice) -> None:
    one = task(tokenizer)
    features, places = features_of(one, [toy_rows()[3], toy_rows()[3]])
    batch = one.collate(features, [(0, 7)] * len(places), draw=0)
    assert batch.inputs["choice_index"].sort(dim=1).values.tolist() != [[0, 1, 2], [3, 4, 5]]  # they lie intermingled
    logits = model(**batch.inputs).logits
    torch.testing.assert_close(logits[0], logits[1])
    assert batch.num_targets == 2


def test_data_sets_with_other_numbers_of_choices_share_a_batch(
    tokenizer: Tokenizer, model: XLMRobertaXLForMultipleChoice
) -> None:
    three, two = task(tokenizer), task(tokenizer, labels=["A", "B"])
    features, places = features_of(three, [row()])
    others, _ = features_of(two, [row(choices=["No.", "Yes."], label="B")])
    batch = three.collate([*features, *others], [*places, (1, 0), (1, 0)], draw=0)
    assert batch.inputs["choice_index"][1].tolist()[2] == -1
    output = model(**batch.inputs)
    assert output.num_targets.item() == batch.num_targets == 2
    alone = two.collate(others, [(1, 0)] * 2, draw=0)
    torch.testing.assert_close(model(**alone.inputs).logits[0], output.logits[1, :2])
    assert output.logits[1, 2] < -1e38 and torch.isfinite(output.loss_sum)
    output.loss_sum.backward()
    assert all(torch.isfinite(item.grad).all() for item in model.parameters() if item.grad is not None)
    last = three.predict(output, batch, [*features, *others])[-1]
    assert (last.table, last.reference, len(last.details["scores"])) == (1, 1, 2)


def test_a_batch_without_targets_reaches_every_parameter(
    tokenizer: Tokenizer, model: XLMRobertaXLForMultipleChoice
) -> None:
    model.zero_grad()
    empty = task(tokenizer).empty_batch()
    assert empty.num_targets == 0
    output = model(**empty.inputs)
    assert output.num_targets.item() == 0
    output.loss_sum.backward()
    assert torch.isfinite(output.loss_sum)
    unused = {name for name, item in model.named_parameters() if item.grad is None}
    assert unused == set()
    assert all(not item.grad.any() for item in model.parameters())


def test_predictions_are_written_as_the_data_set_writes_labels(
    tokenizer: Tokenizer, model: XLMRobertaXLForMultipleChoice
) -> None:
    one = task(tokenizer)
    features, places = features_of(one, [row(label="C")])
    batch = one.collate(features, places, draw=0)
    item = one.predict(model(**batch.inputs), batch, features)[0]
    item.prediction = 1
    described = one.describe(item)
    assert 1 / 5 <= described.pop("confidence") <= 1
    assert described == {"prediction": "B", "reference": "C", "scores": item.details["scores"]}


# Runs


def own_data(folder: Path, rows: list[dict[str, object]]) -> list[str]:
    (folder / "dataset").mkdir()
    sets = "[{path: quiz.jsonl}]"
    (folder / "dataset" / "quiz.yaml").write_text(
        "name: quiz\nkind: multiple_choice\nlanguages: [en]\nid_column: key\n"
        "columns: {question: ask, choices: answers, label: answer}\nlabels: [a, b, c, d, e]\n"
        f"files: {{train: {sets}, validation: {sets}, test: {sets}}}\n"
    )
    (folder / "quiz.jsonl").write_text("".join(json.dumps(item) + "\n" for item in rows))
    return [
        "recipe=demo", "task=multiple_choice", "dataset=quiz", "data.source=files", f"data.root={folder}",
        f"tokenizer.path={SAMPLE_TOKENIZER}", "evaluate.languages=[]", "evaluate.bootstrap=0", "evaluate.every=0",
        f"run.dir={folder / 'run'}",
    ]  # fmt: skip


def quiz(number: int, count: int = 5) -> dict[str, object]:
    words = ["sun", "rain", "book", "dog", "girl"]
    answers = words[number % 5 :] + words[: number % 5]
    label = "abcde"[answers.index("sun")]
    return {"key": f"q{number}", "ask": f"What shines on {number} days?", "answers": answers[:count], "answer": label}


def test_a_list_of_choices_in_json_lines(tmp_path: Path) -> None:
    words = own_data(tmp_path, [quiz(number) for number in range(12)])
    report = train(load_config([*words, "train.max_steps=30", "train.batch_size=6"], config_dir=tmp_path))
    assert report is not None and report.languages["en"].n == 12
    assert report.languages["en"].values["accuracy"] > 0.9
    lines = [json.loads(line) for line in (tmp_path / "run/predictions/en.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [f"q{number}" for number in range(12)]
    assert "".join(line["reference"] for line in lines) == "aedcbaedcbae"
    assert all(line["scores"]["abcde".index(line["prediction"])] == max(line["scores"]) for line in lines)
    assert all(len(line["texts"]) == 6 and 0.2 < line["confidence"] <= 1 for line in lines)  # question and five answers


def test_a_row_with_another_number_is_found_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = own_data(tmp_path, [*map(quiz, range(5)), quiz(5, count=4)])
    assert main(["--config-dir", str(tmp_path), *words]) == 2
    assert "quiz.jsonl:6: column 'answers' must hold 5 choices" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_fifty_questions_of_copa_are_learnt_by_heart(tmp_path: Path, shared_data: Path) -> None:
    files = "[{path: commonsense/xcopa/en/train-en.jsonl}]"
    words = [
        "recipe=demo", "task=multiple_choice", "dataset=copa", "data.source=files", f"data.root={shared_data}",
        f"tokenizer.path={SAMPLE_TOKENIZER}", "train.languages=[en]", "evaluate.languages=[]", "data.limit=50",
        f"dataset.files.test={files}", "evaluate.every=0", "evaluate.bootstrap=0", "train.epochs=40",
        f"run.dir={tmp_path / 'run'}",
    ]  # fmt: skip
    report = train(load_config(words))
    assert report is not None and report.languages["en"].n == 50
    assert report.languages["en"].values["accuracy"] > 0.9


def test_long_passages_keep_their_answers(tokenizer: Tokenizer, repository: Path) -> None:
    """Belebele's rows, with passages sixty times as long."""
    dataset = load_config(
        ["recipe=demo", "task=multiple_choice", "dataset=belebele", "data.source=auto", "train.languages=[all]"]
    ).dataset
    one = MultipleChoice(MultipleChoiceConfig(max_length=96), dataset, tokenizer)
    lines = (repository / "tests/tasks/rows/belebele.jsonl").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        record = json.loads(line)
        values = {role: record[column] for role, column in dataset.columns.items()}
        values["context"] *= 60
        example = next(one.examples([Row(id="0", values=values, where=f"rows:{number}")]))
        for feature, answer in zip(one.encode([example])[0], example.values["choices"], strict=True):
            assert len(feature.input_ids) == 96
            ending = tokenizer.encode(values["question"], answer)[1:]
            assert feature.input_ids[-len(ending) :] == ending
