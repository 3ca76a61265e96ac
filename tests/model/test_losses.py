"""Loss sums and target counts."""

import pytest
import torch
from torch.nn import functional

from tests.model.reference import configuration, configuration_of, our_class, padded_batch
from xlmrxl_train.model import losses


def test_class_weights_are_torchs_weighted_mean() -> None:
    torch.manual_seed(0)
    weights = [0.5, 2.0, 1.0]
    model = our_class("SequenceClassification")(configuration(class_weights=weights))
    ids, mask = padded_batch([4, 6, 5, 3])
    labels = torch.tensor([0, 1, -100, 2])
    output = model(ids, mask, labels=labels)
    expected = functional.cross_entropy(output.logits, labels, weight=torch.tensor(weights))
    torch.testing.assert_close(output.loss, expected)
    assert output.num_targets.item() == 3.5


def test_targets_can_be_left_out() -> None:
    logits = torch.randn(3, 2, requires_grad=True)
    total, count = losses.cross_entropy_sum(logits, torch.tensor([-100, 1, -100]))
    assert count == 1 and total.item() == pytest.approx(functional.cross_entropy(logits[1:2], torch.tensor([1])).item())
    nan = float("nan")
    for function in (losses.squared_error_sum, losses.binary_cross_entropy_sum):
        total, count = function(logits, torch.tensor([[nan, nan], [1.0, 0.0], [nan, 1.0]]))
        assert count == 3
        (grad,) = torch.autograd.grad(total, logits)
        assert not grad[0].any() and grad[2, 0] == 0 and grad[1].all() and torch.isfinite(grad).all()
    total, count = losses.squared_error_sum(logits, torch.full((3, 2), nan))
    assert total == 0 and count == 0 and total.requires_grad


def test_labels_are_shifted_within_sequences() -> None:
    shifted = losses.shift_labels(torch.tensor([1, 2, 3, 4, 5, 6]), torch.tensor([0, 3, 4, 6]))
    assert shifted.tolist() == [2, 3, -100, -100, 6, -100]


def test_span_positions_outside_their_sequence_are_left_out() -> None:
    torch.manual_seed(0)
    model = our_class("QuestionAnswering")(configuration_of("QuestionAnswering"))
    ids, mask = padded_batch([4, 8, 6], side="left")
    starts = torch.tensor([0, 3, -100])  # the first lies in the padding
    output = model(ids, mask, start_positions=starts, end_positions=starts + 1)
    assert output.num_targets == 1
    expected = [functional.cross_entropy(logits[1:2], torch.tensor([place]))
                for logits, place in ((output.start_logits, 3), (output.end_logits, 4))]  # fmt: skip
    torch.testing.assert_close(output.loss, sum(expected) / 2)
    assert output.start_logits[0].argmax() >= 4  # padding never wins


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chunk", [1, 70, 10**6])
@pytest.mark.parametrize("rows", [0, 7])
def test_chunked_loss(rows: int, chunk: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_CHUNK_ELEMENTS", chunk)
    torch.manual_seed(0)
    leaves = [torch.randn(shape, requires_grad=True) for shape in ((rows, 8), (50, 8), (50,))]
    labels = torch.randint(0, 50, (rows,))
    got = losses.chunked_cross_entropy(*leaves, labels, dtype)
    expected = functional.cross_entropy(leaves[0] @ leaves[1].t() + leaves[2], labels, reduction="none")
    scale = torch.rand(rows)
    grads = [torch.autograd.grad((loss * scale).sum(), leaves) for loss in (got, expected)]
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)
    for ours, reference in zip(*grads, strict=True):
        torch.testing.assert_close(ours, reference, rtol=tolerance, atol=tolerance)


def test_chunked_loss_never_holds_all_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_CHUNK_ELEMENTS", 64)
    widest = 0
    original = losses._chunk_logits

    def spy(*arguments: object) -> torch.Tensor:
        nonlocal widest
        logits = original(*arguments)  # type: ignore[arg-type]
        widest = max(widest, logits.numel())
        return logits

    monkeypatch.setattr(losses, "_chunk_logits", spy)
    hidden = torch.randn(8, 4, requires_grad=True)
    weight, bias = torch.randn(97, 4, requires_grad=True), torch.zeros(97)
    losses.chunked_cross_entropy(hidden, weight, bias, torch.arange(8), torch.float32).sum().backward()
    assert 0 < widest <= 64 and weight.grad is not None
