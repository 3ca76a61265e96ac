"""Products of float8 factors, emulated: close to the others in training, the same in evaluation."""

import copy

import torch

from tests.model.reference import configuration, randomize
from xlmrxl_train.model import PackedSequences, XLMRobertaXLForSequenceClassification
from xlmrxl_train.model.quantization import check_installed

LENGTHS = [3, 9, 5]  # 17 tokens: no multiple of 16


def test_training_rounds_and_evaluation_does_not() -> None:
    check_installed()
    from xlmrxl_train.model.float8 import TrainingFloat8Linear, use_float8

    torch.manual_seed(0)
    plain = XLMRobertaXLForSequenceClassification(configuration()).train()
    randomize(plain)
    rounded = copy.deepcopy(plain)
    for layer in rounded.roberta.encoder.layer:
        use_float8(layer, emulate=True)
    assert sum(isinstance(module, TrainingFloat8Linear) for module in rounded.modules()) == 2 * 6
    assert [name for name, _ in plain.named_parameters()] == [name for name, _ in rounded.named_parameters()]
    inputs = {
        "input_ids": torch.randint(4, 90, (sum(LENGTHS),)),
        "sequences": PackedSequences.from_lengths(LENGTHS),
        "labels": torch.arange(3),
    }
    for model in (plain, rounded):
        model(**inputs).loss_sum.backward()
    expected, got = (
        torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])
        for model in (plain, rounded)
    )
    assert 0.98 < torch.cosine_similarity(expected, got, 0) < 0.99999
    assert torch.equal(plain.eval()(**inputs).logits, rounded.eval()(**inputs).logits)
