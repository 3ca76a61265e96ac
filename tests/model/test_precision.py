"""Dtypes read off by hooks, recomputation, and the count of parameters."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tests.model.reference import configuration, our_class, padded_batch
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.model import PackedSequences, XLMRobertaXLConfig, XLMRobertaXLLayer, XLMRobertaXLModel


def record(model: nn.Module) -> dict[str, tuple[torch.dtype, torch.dtype]]:
    """Note every module's first input's and output's dtype."""
    seen: dict[str, tuple[torch.dtype, torch.dtype]] = {}

    def hook(name: str) -> Callable[..., None]:
        def note(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if inputs and isinstance(output, Tensor) and isinstance(inputs[0], Tensor):
                seen[name] = (inputs[0].dtype, output.dtype)

        return note

    for name, module in model.named_modules():
        module.register_forward_hook(hook(name))
    return seen


def check_norms_and_products(seen: dict[str, tuple[torch.dtype, torch.dtype]], residual: torch.dtype) -> None:
    bf16, fp32 = torch.bfloat16, torch.float32
    norms = [name for name in seen if name.endswith(("LayerNorm", "layer_norm"))]
    products = [name for name in seen if name.endswith((".query", ".key", ".value", ".dense", ".out_proj"))]
    assert len(norms) == 5 and len(products) == 14
    assert {seen[name] for name in norms} == {(residual, fp32)}
    assert {seen[name][1] for name in products} == {bf16}
    layers = [seen[f"roberta.encoder.layer.{index}"] for index in range(2)]
    assert set(layers) == {(residual, residual)}


@pytest.mark.parametrize("backend", ["grouped", "sdpa", "eager"])
def test_autocast(backend: str) -> None:
    model = our_class("SequenceClassification")(configuration(attn_implementation=backend, hidden_dropout_prob=0.1))
    seen = record(model)
    ids, mask = padded_batch([7, 12, 3])
    with torch.autocast("cpu", torch.bfloat16):
        output = model(ids, mask, labels=torch.tensor([0, 1, 2]))
    check_norms_and_products(seen, torch.float32)
    assert output.loss.dtype == output.loss_sum.dtype == torch.float32
    output.loss.backward()
    assert {parameter.grad.dtype for parameter in model.parameters() if parameter.grad is not None} == {torch.float32}
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("residual", [None, torch.float32])
def test_bfloat16_weights(residual: torch.dtype | None) -> None:
    model = our_class("SequenceClassification")(configuration()).bfloat16()
    model.roberta.residual_dtype = residual
    seen = record(model)
    ids, mask = padded_batch([7, 12, 3])
    output = model(ids, mask, labels=torch.tensor([0, 1, 2]), output_hidden_states=True)
    check_norms_and_products(seen, residual or torch.bfloat16)
    assert {states.dtype for states in output.hidden_states} == {residual or torch.bfloat16}
    assert output.loss.dtype == torch.float32
    output.loss.backward()


def test_scores_of_low_precision_are_normalised_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.dtype] = []
    softmax = torch.softmax

    def spy(scores: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
        asked.append(dtype)
        return softmax(scores, dim, dtype=dtype)

    monkeypatch.setattr(torch, "softmax", spy)
    our_class("")(configuration()).bfloat16()(torch.randint(3, 97, (2, 5)))
    assert asked == [torch.float32] * 2


def test_language_model_loss_in_autocast_equals_whole_logits() -> None:
    torch.manual_seed(0)
    model = our_class("MaskedLM")(configuration())
    ids = torch.randint(3, 97, (12,))
    with torch.autocast("cpu", torch.bfloat16):
        packed = model(input_ids=ids, labels=ids, sequences=PackedSequences.from_lengths([12]))
        padded = model(ids[None], labels=ids[None])
    assert packed.loss.dtype == torch.float32
    torch.testing.assert_close(packed.loss, padded.loss, rtol=5e-3, atol=0)


@pytest.mark.parametrize("dropout_p", [0.0, 0.1])
@pytest.mark.parametrize("choice", ["full", "every_2", "selective"])
def test_recomputation_gives_identical_gradients(dropout_p: float, choice: str) -> None:
    config = configuration(hidden_dropout_prob=dropout_p, attention_probs_dropout_prob=dropout_p)
    model = our_class("MaskedLM")(config)
    ids, mask = padded_batch([9, 12, 4])
    gradients = []
    for recompute in ("none", choice):
        model.roberta.encoder.recompute = recompute
        model.zero_grad()
        torch.manual_seed(3)
        model(ids, mask, labels=ids.masked_fill(mask == 0, -100)).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None])
    assert all(torch.equal(left, right) for left, right in zip(*gradients, strict=True))
    assert len(gradients[0]) == len(list(model.parameters()))


def test_recomputation_runs_layers_again_only_in_training() -> None:
    model = our_class("TokenClassification")(configuration())
    calls: list[int] = []
    for module in model.modules():
        if isinstance(module, XLMRobertaXLLayer):
            module.register_forward_pre_hook(lambda *_: calls.append(1))
    ids, _ = padded_batch([6, 6])
    for choice, count in (("none", 2), ("full", 4), ("every_2", 3), ("selective", 4)):
        model.roberta.encoder.recompute = choice
        calls.clear()
        model.train()(ids, labels=ids % 3).loss.backward()
        assert len(calls) == count
        calls.clear()
        model.eval()(ids, labels=ids % 3).loss.backward()
        assert len(calls) == 2
    for wrong in ("some", "every_1", "every_"):
        with pytest.raises(ConfigError, match=f'recompute must be none, full, selective or every_<n>.* got "{wrong}"'):
            model.roberta.encoder.recompute = wrong


def test_selective_recomputation_runs_no_linear_layer_again() -> None:
    model = our_class("TokenClassification")(configuration())
    ids, _ = padded_batch([6, 9])
    flops = {}
    for choice in ("none", "full", "selective"):
        model.roberta.encoder.recompute = choice
        loss = model(ids, labels=ids % 3).loss
        with FlopCounterMode(display=False) as counter:
            loss.backward()
        counts = counter.get_flop_counts()["Global"]
        flops[choice] = sum(counts.get(name, 0) for name in (torch.ops.aten.mm, torch.ops.aten.addmm))
    assert flops["selective"] == flops["none"] < flops["full"]


def test_the_number_of_parameters_is_the_published_one() -> None:
    with torch.device("meta"):
        assert XLMRobertaXLModel(XLMRobertaXLConfig(), add_pooling_layer=False).num_parameters() == 3_475_929_600
        assert our_class("MaskedLM")(XLMRobertaXLConfig()).num_parameters() == 3_482_741_760


def test_initialisation_is_the_hubs() -> None:
    torch.manual_seed(0)
    model = our_class("MaskedLM")(configuration(vocab_size=2000, hidden_size=64, initializer_range=0.02))
    for name, parameter in model.named_parameters():
        if "orm" in name:
            assert (parameter == (1 if name.endswith("weight") else 0)).all(), name
        elif parameter.dim() == 1:
            assert not parameter.any(), name
        elif parameter.numel() > 64:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.1), name
    for table in ("word", "position"):
        assert not model.get_parameter(f"roberta.embeddings.{table}_embeddings.weight")[1].any()
    assert model.lm_head.decoder.weight is model.roberta.embeddings.word_embeddings.weight
    assert model.lm_head.decoder.bias is model.lm_head.bias
