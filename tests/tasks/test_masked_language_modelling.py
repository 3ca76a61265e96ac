"""Masks: how many, of which kind, the same for the same draw."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch

from xlmrxl_train.config import DatasetConfig, MaskedLanguageModellingConfig
from xlmrxl_train.data.examples import Feature, Row
from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.errors import DataError
from xlmrxl_train.model import XLMRobertaXLConfig, XLMRobertaXLForMaskedLM
from xlmrxl_train.session import SAMPLE_TOKENIZER
from xlmrxl_train.tasks.masked_language_modelling import IGNORED, MaskedLanguageModelling


@pytest.fixture(scope="module")
def task() -> MaskedLanguageModelling:
    dataset = DatasetConfig(name="toy", kind="masked_language_modelling", columns={"text": "de", "text_pair": "en"})
    return MaskedLanguageModelling(MaskedLanguageModellingConfig(), dataset, Tokenizer.from_path(SAMPLE_TOKENIZER))


def feature(task: MaskedLanguageModelling, length: int) -> Feature:
    words = np.random.default_rng(0).integers(10, len(task.tokenizer) - 1, length).tolist()
    return Feature(example=0, input_ids=[task.tokenizer.bos_token_id, *words, task.tokenizer.eos_token_id])


def test_masks_have_the_published_shares(task) -> None:
    original = torch.tensor(feature(task, 50_000).input_ids)
    batch = task.collate([feature(task, 50_000)], [(0, 0)], draw=1)
    chosen = batch.inputs["labels"] != IGNORED
    assert chosen.float().mean().item() == pytest.approx(0.15, abs=0.01)
    assert (batch.inputs["labels"][chosen] == original[chosen]).all()
    assert (batch.inputs["input_ids"][~chosen] == original[~chosen]).all()
    read = batch.inputs["input_ids"][chosen]
    kinds = Counter(
        "masked" if a == task.tokenizer.mask_token_id else "kept" if a == b else "random"
        for a, b in zip(read.tolist(), original[chosen].tolist(), strict=True)
    )
    total = sum(kinds.values())
    assert kinds["masked"] / total == pytest.approx(0.8, abs=0.03)
    assert kinds["random"] / total == pytest.approx(0.1, abs=0.02)
    assert kinds["kept"] / total == pytest.approx(0.1, abs=0.02)
    assert not chosen[0] and not chosen[-1]  # <s> and </s> are never predicted


def test_masks_depend_on_draw_and_example_only(task) -> None:
    one, other = feature(task, 40), feature(task, 30)
    both = task.collate([one, other], [(0, 5), (1, 2)], draw=7)
    alone = task.collate([other], [(1, 2)], draw=7)
    assert torch.equal(both.inputs["input_ids"][42:], alone.inputs["input_ids"])
    again = task.collate([other], [(1, 2)], draw=8)
    assert not torch.equal(alone.inputs["labels"], again.inputs["labels"])


@pytest.fixture(scope="module")
def whole() -> MaskedLanguageModelling:
    dataset = DatasetConfig(name="toy", kind="masked_language_modelling", columns={"text": "text"})
    config = MaskedLanguageModellingConfig(whole_word=True)
    return MaskedLanguageModelling(config, dataset, Tokenizer.from_path(SAMPLE_TOKENIZER))


def test_words_are_hidden_whole_and_in_one_way(whole) -> None:
    original = np.array(feature(whole, 50_000).input_ids)
    batch = whole.collate([feature(whole, 50_000)], [(0, 0)], draw=1)
    chosen, read = (batch.inputs["labels"] != IGNORED).numpy(), batch.inputs["input_ids"].numpy()
    assert batch.num_targets == chosen.sum() and chosen.mean() == pytest.approx(0.15, abs=0.01)
    words = np.flatnonzero(whole.word_starts.of(original))
    assert len(words) < 0.9 * len(original)  # some words have several pieces
    kinds: Counter[str] = Counter()
    for begin, end in pairwise([*words.tolist(), len(original)]):
        assert len(set(chosen[begin:end].tolist())) == 1  # all of it or nothing
        if chosen[begin]:
            masked = read[begin:end] == whole.tokenizer.mask_token_id
            assert masked.all() or not masked.any()
            kept = (read[begin:end] == original[begin:end]).all()
            kinds["masked" if masked.all() else "kept" if kept else "random"] += 1
    assert kinds["masked"] / kinds.total() == pytest.approx(0.8, abs=0.03)
    assert kinds["random"] / kinds.total() == pytest.approx(0.1, abs=0.02)


def test_one_word_of_several_pieces_is_predicted_whole(whole) -> None:
    tokens = whole.tokenizer.encode("Qxzqxz")  # no word of the sample
    assert len(tokens) > 4 and whole.word_starts.of(np.array(tokens)).sum() == 3
    batch = whole.collate([Feature(example=0, input_ids=tokens)], [(0, 0)], draw=0)
    assert batch.num_targets == len(tokens) - 2


def test_a_mask_that_stands_in_a_text_is_not_predicted(task) -> None:
    tokens = [0, task.tokenizer.mask_token_id, 2]
    batch = task.collate([Feature(example=0, input_ids=tokens)], [(0, 0)], draw=0)
    assert batch.num_targets == 0 and batch.inputs["input_ids"].tolist() == tokens


def test_a_short_text_predicts_at_least_one_token(task) -> None:
    for example in range(20):
        assert task.collate([feature(task, 1)], [(0, example)], draw=0).num_targets == 1


def test_predictions_are_losses_per_example(task) -> None:
    features = [feature(task, 30), feature(task, 12)]
    batch = task.collate(features, [(0, 3), (0, 4)], draw=0)
    config = XLMRobertaXLConfig(
        vocab_size=len(task.tokenizer), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    model = XLMRobertaXLForMaskedLM(config).eval()
    output = model(**batch.inputs)
    predictions = task.predict(output, batch, features)
    assert sum(item.reference for item in predictions) == batch.num_targets
    assert sum(item.prediction for item in predictions) == pytest.approx(output.loss_sum.item(), rel=1e-5)
    second = task.collate(features[1:], [(0, 4)], draw=0)
    alone = task.predict(model(**second.inputs), second, features[1:])
    assert alone[0].prediction == pytest.approx(predictions[1].prediction, rel=1e-4)


def test_a_batch_without_targets_has_a_gradient_of_zero_everywhere(task) -> None:
    config = XLMRobertaXLConfig(
        vocab_size=len(task.tokenizer), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    model = XLMRobertaXLForMaskedLM(config)
    model(**task.empty_batch().inputs).loss_sum.backward()
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not missing  # a parameter without a gradient would leave data-parallel ranks waiting


def test_text_must_be_text(task) -> None:
    with pytest.raises(DataError, match=r"p\.tsv:2: column 'en' must hold text, got None"):
        list(task.examples([Row(id="0", values={"text": "a", "text_pair": None}, where="p.tsv:2")]))
