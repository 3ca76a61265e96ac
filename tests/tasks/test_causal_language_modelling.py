"""Next tokens: which are counted, and the loss beside one computed directly."""

import pytest
import torch
from torch.nn import functional

from xlmrxl_train.config import CausalLanguageModellingConfig, DatasetConfig
from xlmrxl_train.data.examples import Feature, Row
from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.errors import DataError
from xlmrxl_train.model import XLMRobertaXLConfig, XLMRobertaXLForCausalLM
from xlmrxl_train.session import SAMPLE_TOKENIZER
from xlmrxl_train.tasks.causal_language_modelling import CausalLanguageModelling

SEQUENCES = [[0, 40, 41, 42, 43, 2], [0, 50, 51, 2], [0, 60, 2]]
EXAMPLES = [(0, 4), (0, 1), (1, 3)]


def features(sequences: list[list[int]]) -> list[Feature]:
    return [Feature(example=0, input_ids=tokens) for tokens in sequences]


@pytest.fixture(scope="module")
def task() -> CausalLanguageModelling:
    dataset = DatasetConfig(name="toy", kind="masked_language_modelling", columns={"text": "line"})
    return CausalLanguageModelling(CausalLanguageModellingConfig(), dataset, Tokenizer.from_path(SAMPLE_TOKENIZER))


@pytest.fixture(scope="module")
def model(task: CausalLanguageModelling) -> XLMRobertaXLForCausalLM:
    torch.manual_seed(0)
    config = XLMRobertaXLConfig(
        vocab_size=len(task.tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=16, initializer_range=0.5, **task.model_options(),
    )  # fmt: skip
    return XLMRobertaXLForCausalLM(config).eval()


def test_the_task_counts_what_the_model_counts(task, model) -> None:
    batch = task.collate(features(SEQUENCES), EXAMPLES, draw=0)
    output = model(**batch.inputs)
    assert batch.num_targets == output.num_targets.item() == 5 + 3 + 2  # all but each sequence's first token
    del batch.inputs["rows"]  # the model finds the same ones
    assert model(**batch.inputs).num_targets.item() == batch.num_targets


def test_the_loss_is_that_of_each_sequence_alone_and_padded(task, model) -> None:
    batch = task.collate(features(SEQUENCES), EXAMPLES, draw=0)
    predictions = task.predict(model(**batch.inputs), batch, features(SEQUENCES))
    assert [(item.table, item.example) for item in predictions] == EXAMPLES
    for tokens, prediction in zip(SEQUENCES, predictions, strict=True):
        ids = torch.tensor([tokens])
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
        expected = functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="sum")
        assert prediction.prediction == pytest.approx(expected.item(), rel=1e-5)
        assert prediction.reference == len(tokens) - 1
        assert task.describe(prediction) == {
            "loss": prediction.prediction / prediction.reference,
            "tokens": prediction.reference,
        }


def test_a_token_does_not_see_later_ones_nor_other_sequences(task, model) -> None:
    batch = task.collate(features(SEQUENCES), EXAMPLES, draw=0)
    losses = model(**batch.inputs).target_losses
    changed = [[*SEQUENCES[0][:4], 99, 98], [0, 90, 91, 2], SEQUENCES[2]]
    other = model(**task.collate(features(changed), EXAMPLES, draw=0).inputs).target_losses
    assert torch.allclose(losses[:3], other[:3]) and not torch.allclose(losses[3:8], other[3:8])
    assert torch.allclose(losses[8:], other[8:])


def test_a_batch_without_targets_has_a_gradient_of_zero_everywhere(task, model) -> None:
    batch = task.empty_batch()
    output = model(**batch.inputs)
    output.loss_sum.backward()
    assert batch.num_targets == output.num_targets.item() == 0
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert all(not parameter.grad.any() for parameter in model.parameters())
    model.zero_grad()


def test_text_must_be_text(task) -> None:
    with pytest.raises(DataError, match=r"^p\.txt:2: column 'line' must hold text, got 7\. Mend the row, or map"):
        list(task.examples([Row(id="0", values={"text": 7}, where="p.txt:2")]))
