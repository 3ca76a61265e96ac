"""Prepacked weights: the same results within bfloat16, and no trace outside their block."""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from tests.model.reference import configuration, our_class, padded_batch, randomize
from xlmrxl_train.model import PreTrained, prepacked, prepacking
from xlmrxl_train.model.layers import Linear

pytestmark = pytest.mark.skipif(not prepacking._supported(), reason="this processor has no bfloat16 of oneDNN")


@pytest.fixture
def model() -> PreTrained:
    torch.manual_seed(0)
    made = our_class("SequenceClassification")(configuration()).eval()
    randomize(made)
    return made


def logits(model: nn.Module, lengths: list[int], *, bf16: bool = True, gradients: bool = False) -> Tensor:
    torch.manual_seed(1)
    ids, mask = padded_batch(lengths)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16), torch.set_grad_enabled(gradients):
        result: Tensor = model(ids, mask).logits
    return result


def num_copies(model: nn.Module) -> int:
    return sum(module._prepacked is not None for module in model.modules() if isinstance(module, Linear))


def test_results_are_as_near_to_float32_as_autocasts(model: PreTrained) -> None:
    exact, usual = logits(model, [7, 12, 3], bf16=False), logits(model, [7, 12, 3])
    with prepacked(model):
        packed = logits(model, [7, 12, 3])
        assert num_copies(model) == 14
    assert packed.dtype == usual.dtype
    assert (packed - exact).abs().max() < 2 * (usual - exact).abs().max() + 1e-3
    assert num_copies(model) == 0
    assert torch.equal(logits(model, [7, 12, 3]), usual)


def test_results_do_not_depend_on_what_came_before(model: PreTrained) -> None:
    with prepacked(model):
        logits(model, [1])
        after_small = logits(model, [7, 12, 3])
    with prepacked(model):
        logits(model, [64, 64])
        assert torch.equal(logits(model, [7, 12, 3]), after_small)


@pytest.mark.parametrize(("bf16", "gradients"), [(False, False), (False, True), (True, True)])
def test_float32_and_passes_with_gradients_are_untouched(model: PreTrained, bf16: bool, gradients: bool) -> None:
    results = []
    for context in (nullcontext(), prepacked(model)):
        with context:
            results.append(logits(model, [7, 12, 3], bf16=bf16, gradients=gradients))
            assert num_copies(model) == 0
    assert torch.equal(*results)
    assert results[1].requires_grad == gradients


def test_new_weights_are_seen_by_the_next_block(model: PreTrained) -> None:
    with prepacked(model):
        before = logits(model, [7, 12, 3])
    with torch.no_grad():
        model.get_parameter("classifier.out_proj.weight").neg_()
        model.get_parameter("classifier.out_proj.bias").neg_()
    with prepacked(model):
        assert torch.equal(logits(model, [7, 12, 3]), -before)


def test_copies_are_dropped_after_a_fault_and_by_the_outer_block(model: PreTrained) -> None:
    with pytest.raises(KeyboardInterrupt), prepacked(model):
        with prepacked(model):
            logits(model, [5])
        assert num_copies(model) == 14
        raise KeyboardInterrupt
    assert num_copies(model) == 0


def test_no_copies_where_they_would_take_much_of_the_memory(model: PreTrained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepacking, "_memory", lambda: 100_000)
    usual = logits(model, [7, 12, 3])
    with prepacked(model):
        assert torch.equal(logits(model, [7, 12, 3]), usual)
        assert num_copies(model) == 0
