"""Labels, texts and batches of sequence classification."""

import pytest
import torch

from xlmrxl_train.config import DatasetConfig, SequenceClassificationConfig
from xlmrxl_train.data.examples import Row
from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.errors import DataError
from xlmrxl_train.model import XLMRobertaXLConfig, XLMRobertaXLForSequenceClassification
from xlmrxl_train.session import SAMPLE_TOKENIZER
from xlmrxl_train.tasks.sequence_classification import SequenceClassification


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_path(SAMPLE_TOKENIZER)


def task(tokenizer: Tokenizer, problem_type: str = "single_label_classification", **dataset) -> SequenceClassification:
    settings = {
        "name": "toy",
        "kind": "sequence_classification",
        "columns": {"text": "a", "text_pair": "b", "label": "c"},
        "labels": ["entailment", "neutral", "contradiction"],
    } | dataset
    weights = [2.0, 1.0, 0.5] if problem_type == "single_label_classification" else []
    config = SequenceClassificationConfig(problem_type=problem_type, class_weights=weights, max_length=64)
    return SequenceClassification(config, DatasetConfig(**settings), tokenizer)


def row(label: object, **values: object) -> Row:
    return Row(
        id="0", values={"text": "The girl reads.", "text_pair": "She sleeps.", "label": label} | values, where="f.tsv:3"
    )


@pytest.mark.parametrize(("written", "expected"), [("neutral", 1), (1, 1), ("1", 1), ("yes", 0)])
def test_labels_are_words_mapped_words_or_numbers(tokenizer, written, expected) -> None:
    examples = task(tokenizer, label_values={"yes": "entailment"}).examples([row(written)])
    assert next(examples).values["label"] == expected


def test_a_label_written_as_another_number_is_taken_as_it_is_mapped(tokenizer) -> None:
    examples = task(tokenizer, label_values={"1": "entailment"}).examples([row("1")])
    assert next(examples).values["label"] == 0


@pytest.mark.parametrize("written", ["maybe", 3, -1, None, "", 1.5])
def test_an_unknown_label_is_an_error_with_its_place(tokenizer, written) -> None:
    with pytest.raises(
        DataError, match=r"f\.tsv:3: label must be one of entailment, neutral, contradiction or a number"
    ):
        list(task(tokenizer).examples([row(written)]))


def test_rows_to_skip_leave_no_example(tokenizer) -> None:
    assert not list(task(tokenizer, skip_labels=["-"]).examples([row("-")]))


def test_missing_text_is_an_error_that_names_the_column(tokenizer) -> None:
    with pytest.raises(DataError, match=r"f\.tsv:3: column 'b' must hold text, got None"):
        list(task(tokenizer).examples([row("neutral", text_pair=None)]))


def test_regression_takes_numbers_only(tokenizer) -> None:
    regression = task(tokenizer, "regression", labels=[])
    assert next(regression.examples([row("2.5")])).values["label"] == 2.5
    with pytest.raises(DataError, match=r"f\.tsv:3: column 'c' must hold a finite number, got 'high'"):
        list(regression.examples([row("high")]))
    with pytest.raises(DataError, match="must hold a finite number, got 'nan'"):
        list(regression.examples([row("nan")]))


def test_multi_label_takes_lists_and_text_with_commas(tokenizer) -> None:
    multi = task(tokenizer, "multi_label_classification")
    assert next(multi.examples([row("neutral, entailment")])).values["label"] == [1.0, 1.0, 0.0]
    assert next(multi.examples([row([2])])).values["label"] == [0.0, 0.0, 1.0]
    assert next(multi.examples([row("")])).values["label"] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification", "regression"])
def test_rows_without_gold_are_predicted(tokenizer, problem_type) -> None:
    one = task(
        tokenizer, problem_type, skip_labels=["None"], **({"labels": []} if problem_type == "regression" else {})
    )
    labelled = one.encoding
    one.labelled = False
    assert one.encoding != labelled
    nothing = Row(id="0", values={"text": "She reads.", "text_pair": "She sleeps."}, where="f.tsv:3")
    examples = list(one.examples([nothing]))
    features = [feature for group in one.encode(examples) for feature in group]
    batch = one.collate(features, [(0, 0)], draw=0)
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = XLMRobertaXLConfig(vocab_size=len(tokenizer), **shape, **one.model_options())
    [prediction] = one.predict(XLMRobertaXLForSequenceClassification(config)(**batch.inputs), batch, features)
    assert prediction.reference is None and one.describe(prediction)["reference"] is None
    assert prediction.prediction is not None


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification", "regression"])
def test_the_batch_counts_targets_as_the_model_does(tokenizer, problem_type) -> None:
    one = task(tokenizer, problem_type)
    written = {"single_label_classification": ["neutral", "contradiction"], "regression": [1, 2]}.get(
        problem_type, [["neutral"], []]
    )
    examples = list(one.examples([row(label) for label in written]))
    features = [feature for group in one.encode(examples) for feature in group]
    batch = one.collate(features, [(0, 0), (0, 1)], draw=0)
    options = one.model_options() | (
        {"num_labels": 1, "id2label": {0: "x"}, "label2id": {"x": 0}} if problem_type == "regression" else {}
    )
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = XLMRobertaXLConfig(vocab_size=len(tokenizer), **shape, **options)
    model = XLMRobertaXLForSequenceClassification(config)
    output = model(**batch.inputs)
    assert output.num_targets.item() == pytest.approx(batch.num_targets)
    assert batch.num_tokens == sum(len(feature.input_ids) for feature in features)
    predictions = one.predict(output, batch, features)
    assert [(item.table, item.example) for item in predictions] == [(0, 0), (0, 1)]
    empty = one.empty_batch()
    assert empty.num_targets == 0
    assert torch.isfinite(model(**empty.inputs).loss_sum)
