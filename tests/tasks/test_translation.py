"""Translation: what a batch holds and counts, greedy decoding through the task, a run from a checkpoint and back."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from xlmrxl_train import load_config, train
from xlmrxl_train.config import DatasetConfig, TranslationConfig
from xlmrxl_train.data.examples import Batch, Feature, Row
from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.errors import ConfigError, DataError
from xlmrxl_train.model import ModelOutput, XLMRobertaXLConfig, XLMRobertaXLEncoderDecoder, XLMRobertaXLForMaskedLM
from xlmrxl_train.run import evaluate
from xlmrxl_train.session import SAMPLE_TOKENIZER
from xlmrxl_train.tasks.translation import Translation

PAIRS = [("Das Mädchen liest.", "The girl reads."), ("老师在3号房间踢足球。", "The teacher plays football in room 3.")]
DATASET = DatasetConfig(name="toy", kind="translation", columns={"text": "foreign", "text_pair": "english"})


def rows(pairs: list[tuple[object, object]]) -> list[Row]:
    return [
        Row(id=str(number), values={"text": text, "text_pair": other}, where=f"p.tsv:{number + 1}")
        for number, (text, other) in enumerate(pairs)
    ]


@pytest.fixture(scope="module")
def task() -> Translation:
    return Translation(TranslationConfig(max_target_length=16), DATASET, Tokenizer.from_path(SAMPLE_TOKENIZER))


@pytest.fixture(scope="module")
def model(task: Translation) -> XLMRobertaXLEncoderDecoder:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    config = XLMRobertaXLConfig(vocab_size=len(task.tokenizer) + 30, **shape, initializer_range=0.3)
    return XLMRobertaXLEncoderDecoder(config).eval()


@pytest.fixture(scope="module")
def features(task: Translation) -> list[Feature]:
    return [feature for [feature] in task.encode(list(task.examples(rows(PAIRS))))]


@pytest.fixture(scope="module")
def batch(task: Translation, features: list[Feature]) -> Batch:
    return task.collate(features, [(0, 3), (1, 0)], draw=0)


def test_the_task_counts_what_the_model_counts(task, model, features, batch) -> None:
    targets = [task.tokenizer.encode(english)[1:] for _, english in PAIRS]
    output = model(**batch.inputs)
    assert batch.num_targets == output.num_targets.item() == sum(map(len, targets))
    assert batch.num_tokens == sum(len(feature.input_ids) for feature in features)  # the budget is for both texts
    assert [feature.input_ids for feature in features] == [
        [*task.tokenizer.encode(foreign), *target] for (foreign, _), target in zip(PAIRS, targets, strict=True)
    ]
    del batch.inputs["rows"]  # the model finds the same ones
    assert model(**batch.inputs).num_targets.item() == batch.num_targets


@torch.no_grad()
def test_the_loss_is_that_of_each_pair_alone(task, model, batch) -> None:
    expected = torch.zeros(())
    for foreign, english in PAIRS:
        source, target = (torch.tensor([task.tokenizer.encode(text)]) for text in (foreign, english))
        logits = model(input_ids=source, decoder_input_ids=target[:, :-1]).logits[0]
        expected += functional.cross_entropy(logits, target[0, 1:], reduction="sum")
    torch.testing.assert_close(model(**batch.inputs).loss_sum, expected, rtol=1e-5, atol=0)


@torch.no_grad()
def test_translations_end_at_the_end_token_or_the_longest_length(task, model, features, batch) -> None:
    inputs = task.prediction_inputs(batch.inputs, bool)
    assert not {"labels", "decoder_input_ids", "decoder_sequences"} & set(inputs)  # no target is seen
    found = task.predict(model(**inputs), batch, features)
    assert [(item.table, item.example) for item in found] == batch.examples
    assert [item.reference for item in found] == [english for _, english in PAIRS]
    for (foreign, english), item in zip(PAIRS, found, strict=True):
        [written] = model(
            input_ids=torch.tensor([task.tokenizer.encode(foreign)]), generate=True, max_new_tokens=15, num_tokens=1025
        ).generated_ids.tolist()
        end = task.tokenizer.eos_token_id
        assert len(written) <= 15 and (written[-1] == end or len(written) == 15) and end not in written[:-1]
        assert item.prediction == task.tokenizer.decode(written, skip_special_tokens=True)
        shown = task.describe(item)
        assert shown == {"prediction": item.prediction, "reference": english, "source": shown["source"]}
        assert shown["source"].replace(" ", "") == foreign.replace(" ", "")


def test_what_follows_the_end_is_not_shown(task, features, batch) -> None:
    words = task.tokenizer.encode("The girl reads.")[1:]
    ids = torch.tensor([[*words, *words], [*words[:-1], *words[:-1], 1, 1]])
    texts = [item.prediction for item in task.predict(ModelOutput(generated_ids=ids), batch, features)]
    assert texts == ["The girl reads.", "The girl reads. The girl reads."]


def test_a_batch_without_targets_has_a_gradient_of_zero_everywhere(task, model) -> None:
    batch = task.empty_batch()
    output = model(**batch.inputs)
    output.loss_sum.backward()
    assert batch.num_targets == output.num_targets.item() == 0 and output.loss_sum == 0
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert all(not parameter.grad.any() for parameter in model.parameters())
    model.zero_grad()


@torch.no_grad()
def test_without_translations_there_is_still_something_to_translate(model) -> None:
    config = TranslationConfig(max_target_length=8)
    task = Translation(config, DATASET, Tokenizer.from_path(SAMPLE_TOKENIZER))
    task.labelled = False
    given = [Row(id="0", values={"text": PAIRS[0][0]}, where="p.tsv:1")]
    features = [feature for [feature] in task.encode(list(task.examples(given)))]
    batch = task.collate(features, [(0, 0)], draw=0)
    [item] = task.predict(model(**task.prediction_inputs(batch.inputs, bool)), batch, features)
    assert item.reference is None and isinstance(item.prediction, str)


def test_long_texts_are_cut_and_still_end() -> None:
    config = TranslationConfig(max_length=8, max_target_length=9)
    task = Translation(config, DATASET, Tokenizer.from_path(SAMPLE_TOKENIZER))
    [[feature]] = task.encode(list(task.examples(rows([("a b c d e f g h i j", "a b c d e f g h i j k l m n")]))))
    source, target = feature.input_ids[:8], feature.input_ids[8:]
    assert feature.columns["source_length"] == 8 and source[0] == 0 and source[-1] == target[-1] == 2
    assert len(target) == 8  # and <s>, which is read and not predicted
    assert task.encoding["max_target_length"] == 9


def test_blank_pairs_are_left_out_and_half_blank_ones_named(task) -> None:
    assert [example.id for example in task.examples(rows([("a", "b"), (" ", ""), ("c", "d")]))] == ["0", "2"]
    with pytest.raises(DataError) as caught:
        list(task.examples(rows([("a", "b"), ("c", " ")])))
    assert str(caught.value) == (
        "p.tsv:2: column 'english' must hold the translation of the other text, got blank text. Mend or remove the row."
    )
    with pytest.raises(DataError, match=r"^p\.tsv:1: column 'foreign' must hold text, got 7\. Mend the row, or map"):
        list(task.examples(rows([(7, "b")])))


QUICK = ["recipe=translation", "model=tiny", "dataset=sample_parallel", "data.source=sample", "data.limit=12",
         "train.languages=[de,zh]", "train.max_steps=2", "evaluate.bootstrap=20", "task.max_target_length=12",
         "dataset.sample.test=[{path: parallel/validation.tsv.gz}]", "evaluate.languages=[de]"]  # fmt: skip


def test_a_run_begins_from_one_checkpoint_and_is_read_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = XLMRobertaXLConfig(
        vocab_size=1025, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    plain = tmp_path / "plain"
    XLMRobertaXLForMaskedLM(config).save_pretrained(plain)
    Tokenizer.from_path(SAMPLE_TOKENIZER).save(plain)
    run = tmp_path / "run"
    report = train(load_config([*QUICK, f"model.path={plain}", f"run.dir={run}"]))
    said = capfd.readouterr().err
    assert f"head    decoder.lm_head as in {plain}" in said
    assert f"head    cross-attention newly initialised: {plain} holds none" in said
    assert report is not None and report.metrics == ["bleu", "chrf"]
    assert "decoded greedily, up to 12 tokens" in (run / "report.md").read_text(encoding="utf-8")
    lines = (run / "predictions" / "de.jsonl").read_text(encoding="utf-8").splitlines()
    first = json.loads(lines[0])
    assert len(lines) == 12 and set(first) == {"id", "prediction", "reference", "source", "statistics"}
    assert len(first["statistics"]["bleu"]) == 10 and len(first["statistics"]["chrf"]) == 18

    assert evaluate(run).languages["de"].values == report.languages["de"].values
    model = XLMRobertaXLEncoderDecoder.from_pretrained(run / "model")
    assert model.load_report is not None and model.load_report.new == model.load_report.unused == ()
    with pytest.raises(ConfigError, match=r'config\.json: model_type must be "xlm-roberta-xl", got "encoder-decoder"'):
        evaluate(run, load_config(["recipe=demo", f"model.path={run}", "evaluate.languages=[en]"]))


def test_translations_fit_the_positions_of_the_model(tmp_path: Path) -> None:
    config = XLMRobertaXLConfig(
        vocab_size=1025, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=20,
    )  # fmt: skip
    XLMRobertaXLForMaskedLM(config).save_pretrained(tmp_path)
    Tokenizer.from_path(SAMPLE_TOKENIZER).save(tmp_path)
    words = [*QUICK, f"model.path={tmp_path}", "task.max_length=19", "task.max_target_length=30"]
    with pytest.raises(ConfigError) as caught:
        train(load_config([*words, f"run.dir={tmp_path / 'run'}"]))
    assert caught.value.faults == (
        "task.max_length must be at most 18, the model's positions, got 19.",
        "task.max_target_length must be at most 18, the model's positions, got 30.",
    )


@pytest.mark.slow
def test_a_mini_model_learns_200_pairs_by_heart(tmp_path: Path) -> None:
    """Cross-attention, loss and decoding belong together: the training pairs, translated, score above 90."""
    words = ["recipe=translation", "model=mini", "dataset=sample_parallel", "data.source=sample", "data.limit=200",
             "dataset.sample.test=[{path: parallel/train.tsv.gz}]", "train.languages=[de]", "evaluate.languages=[de]",
             "evaluate.every=0", "model.hidden_dropout_prob=0", "model.attention_probs_dropout_prob=0",
             "model.initializer_range=0.06", "optimizer.lr=1e-3", "train.epochs=40", "train.batch_size=50"]  # fmt: skip
    report = train(load_config([*words, f"run.dir={tmp_path / 'run'}"]))
    assert report is not None and report.languages["de"].n == 200
    assert report.languages["de"].values["bleu"] > 0.9
