"""The attention backends against each other, and dropout."""

import pytest
import torch
from torch import Tensor, nn

from tests.model.reference import compare_gradients, configuration, our_class, padded_batch, randomize
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.model import PackedSequences
from xlmrxl_train.model import attention as attention_module
from xlmrxl_train.model.attention import attend, choose_backend, make_layout
from xlmrxl_train.model.layers import dropout

LENGTHS = {"sorted": [30, 29, 12, 11, 3], "shuffled": [3, 30, 11, 29, 12], "equal": [6, 6, 6], "one": [17]}


def run(backend: str, inputs: list[Tensor], lengths: list[int], *, causal: bool, max_groups: int = 4) -> list[Tensor]:
    """Return output and the three gradients."""
    leaves = [tensor.clone().requires_grad_() for tensor in inputs[:3]]
    layout = make_layout(backend, PackedSequences.from_lengths(lengths, max_groups=max_groups), causal=causal)
    output = attend(*leaves, layout, 4, 0.0, None)
    output.backward(inputs[3])
    return [output.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("backend", ["grouped", "sdpa"])
def test_backends_agree(
    backend: str, lengths: str, causal: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xlmrxl_train.model.packed._GROUP_OVERHEAD", 1.0)  # so that several groups pay off
    torch.manual_seed(0)
    inputs = [torch.randn(sum(LENGTHS[lengths]), 32).to(dtype) for _ in range(4)]
    expected = run("eager", [tensor.float() for tensor in inputs], LENGTHS[lengths], causal=causal)
    got = run(backend, inputs, LENGTHS[lengths], causal=causal)
    tolerance = 2e-6 if dtype == torch.float32 else 2e-2
    for ours, reference in zip(got, expected, strict=True):
        assert ours.dtype == dtype
        assert (ours - reference).abs().max() < tolerance * (1 + reference.abs().max())


def test_gradients_by_finite_differences() -> None:
    torch.manual_seed(0)
    sequences = PackedSequences.from_lengths([3, 2, 1])
    inputs = tuple(torch.randn(6, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    layout = make_layout("grouped", sequences)
    assert torch.autograd.gradcheck(
        lambda *tensors: attend(*tensors, layout, 2, 0.0, None), inputs, atol=1e-4, eps=1e-3
    )


@pytest.mark.parametrize("backend", ["grouped", "sdpa"])
def test_whole_models_agree(backend: str) -> None:
    torch.manual_seed(0)
    mine, reference = (our_class("TokenClassification")(configuration()) for _ in range(2))
    randomize(mine)
    reference.load_state_dict(mine.state_dict())
    mine.attn_implementation, reference.attn_implementation = backend, "eager"
    ids, mask = padded_batch([20, 5, 13, 20])
    losses = [model(ids, mask, labels=ids % 3).loss for model in (mine, reference)]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(*losses, rtol=1e-5, atol=0)
    compare_gradients(mine, reference)


def test_weights_are_probabilities() -> None:
    model = our_class("")(configuration()).eval()
    ids, mask = padded_batch([5, 9], side="left")
    model.attn_implementation = "grouped"
    weights = model(ids, mask, output_attentions=True).attentions
    assert len(weights) == 2 and weights[0].shape == (2, 4, 9, 9) and weights[0].dtype == torch.float32
    torch.testing.assert_close(weights[0][0, :, 4:].sum(-1), torch.ones(4, 5))
    assert not weights[0][0, :, :4].any() and not weights[0][0, :, :, :4].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_dropout_statistics(probability: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    ones = torch.ones(1001, 999, dtype=dtype, requires_grad=True)
    dropped = dropout(ones, probability)
    share = (dropped == 0).double().mean().item()
    assert share == pytest.approx(probability, abs=4 * (probability * (1 - probability) / ones.numel()) ** 0.5 + 1e-5)
    scale = 1 / (1 - probability)
    assert dropped.max().item() == pytest.approx(scale, rel=1e-4 if dtype == torch.float32 else 4e-3)
    (grad,) = torch.autograd.grad(dropped.sum(), ones)
    assert torch.equal(grad, dropped.detach())
    assert dropout(ones, 0.0) is ones
    rows = (dropped == 0).double().mean(1)
    assert rows.std().item() == pytest.approx((probability * (1 - probability) / 999) ** 0.5, rel=0.15)
    neighbours = (dropped[:, 1:] == 0) & (dropped[:, :-1] == 0)
    assert neighbours.double().mean().item() == pytest.approx(probability**2, abs=2e-3)


@pytest.mark.parametrize("backend", ["grouped", "sdpa", "eager"])
def test_every_backend_drops_with_the_configured_probability(backend: str) -> None:
    """With values of one the output is the sum of what is kept: its mean is 1 and its variance follows from p."""
    torch.manual_seed(0)
    sequences = PackedSequences.from_lengths([64] * 8 + [48] * 8)
    shape = (sequences.num_tokens, 32)
    layout = make_layout(backend, sequences)
    query = torch.zeros(shape)
    output = attend(query, query, torch.ones(shape), layout, 4, 0.1, None)[: 8 * 64]
    assert output.mean().item() == pytest.approx(1.0, abs=0.01)
    assert output.view(-1, 4, 8)[..., 0].var().item() == pytest.approx(0.1 / 0.9 / 64, rel=0.15)


def test_dropout_gradient_uses_the_same_mask() -> None:
    torch.manual_seed(0)
    sequences = PackedSequences.from_lengths([9, 5])
    inputs = [torch.randn(14, 8, dtype=torch.float64) for _ in range(3)]
    layout, direction = make_layout("grouped", sequences), torch.randn(14, 8, dtype=torch.float64)

    def value(tensors: list[Tensor]) -> Tensor:
        torch.manual_seed(7)
        return (attend(*tensors, layout, 2, 0.3, None) * direction).sum()

    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    value(leaves).backward()
    for index, leaf in enumerate(leaves):
        step = torch.randn_like(inputs[index])
        moved = [[*inputs[:index], inputs[index] + sign * 1e-3 * step, *inputs[index + 1 :]] for sign in (1, -1)]
        numeric = (value(moved[0]) - value(moved[1])) / 2e-3
        assert leaf.grad is not None
        assert numeric.item() == pytest.approx((leaf.grad * step).sum().item(), rel=1e-2, abs=1e-3)


def test_dropout_sits_where_the_hub_has_it() -> None:
    """Embedding, attention probabilities, after attention's dense; none after the feed-forward's."""
    import transformers

    config = configuration(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.2, classifier_dropout=0.3)
    mine = our_class("SequenceClassification")(config)
    theirs = transformers.XLMRobertaXLForSequenceClassification(
        transformers.XLMRobertaXLConfig(
            **{key: value for key, value in config.to_dict().items() if key != "model_type"}
        )
    )
    sites = [
        {name: module.p for name, module in model.named_modules() if isinstance(module, nn.Dropout)}
        for model in (mine, theirs)
    ]
    assert sites[0] == sites[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("flash", "cpu", torch.float32, 80), 'must be one of auto, grouped, sdpa, varlen, eager, got "flash".'),
        (("varlen", "cpu", torch.bfloat16, 80), "must run on a CUDA device, got cpu."),
        (("varlen", "cuda", torch.bfloat16, 20), "must have heads of a multiple of 8 features, at most 256, got 20."),
        (("varlen", "cuda", torch.float32, 80), "must have queries in bfloat16 or float16, got float32."),
    ],
)
def test_refusals(arguments: tuple[str, str, torch.dtype, int], message: str) -> None:
    name, device, dtype, head_size = arguments
    with pytest.raises(ConfigError) as error:
        choose_backend(name, torch.device(device), dtype, head_size, wants_weights=False)
    assert message in str(error.value)


def test_auto_picks_by_device() -> None:
    def choose(device: str, dtype: torch.dtype, head_size: int = 80, *, weights: bool = False) -> str:
        return choose_backend("auto", torch.device(device), dtype, head_size, wants_weights=weights)

    assert choose("cpu", torch.bfloat16) == "grouped"
    assert choose("cuda", torch.bfloat16) == choose("cuda", torch.float16) == "varlen"
    assert choose("cuda", torch.bfloat16, 20) == "grouped"
    assert choose("cuda", torch.float32) == "grouped"
    assert choose("cuda", torch.bfloat16, weights=True) == "eager"


def test_backend_can_be_set_later() -> None:
    model = our_class("MaskedLM")(configuration(attn_implementation="sdpa"))
    assert model.attn_implementation == model.roberta.attn_implementation == "sdpa"
    model.attn_implementation = "varlen"
    with pytest.raises(ConfigError, match="must run on a CUDA device"):
        model(torch.ones(1, 3).long())
    with pytest.raises(ConfigError, match='got "best"'):
        model.attn_implementation = "best"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="varlen needs a GPU")
@pytest.mark.parametrize("causal", [False, True])
def test_varlen_on_a_gpu(causal: bool) -> None:
    torch.manual_seed(0)
    lengths = [70, 33, 33, 5]
    inputs = [torch.randn(sum(lengths), 4 * 80).bfloat16() for _ in range(4)]
    expected = run("eager", [tensor.float() for tensor in inputs], lengths, causal=causal)
    for backend in ("varlen", "grouped", "sdpa"):
        leaves = [tensor.cuda().requires_grad_() for tensor in inputs[:3]]
        sequences = PackedSequences.from_lengths(lengths).to("cuda")
        output = attend(*leaves, attention_module.make_layout(backend, sequences, causal=causal), 4, 0.0, None)
        output.backward(inputs[3].cuda())
        for got, reference in zip([output, *(leaf.grad for leaf in leaves)], expected, strict=True):
            assert got is not None
            assert (got.float().cpu() - reference).abs().max() < 2e-2 * (1 + reference.abs().max())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="varlen needs a GPU")
@pytest.mark.parametrize("causal", [False, True])
def test_dropout_of_varlen_on_a_gpu(causal: bool) -> None:
    # Values that are rows of the identity show the probabilities after dropout, so the mask is known.
    torch.manual_seed(0)
    lengths, heads, size, p = [80, 64, 7, 1], 4, 80, 0.25
    sequences = PackedSequences.from_lengths(lengths).to("cuda")
    layout = attention_module.make_layout("varlen", sequences, causal=causal)
    query, key, value, upstream = (torch.randn(sum(lengths), heads * size).cuda().bfloat16() for _ in range(4))
    identity = torch.cat([torch.eye(size)[:length] for length in lengths]).repeat(1, heads).cuda().bfloat16()
    torch.cuda.manual_seed(7)
    dropped = attend(query, key, identity, layout, heads, p, None).view(-1, heads, size)
    torch.cuda.manual_seed(7)
    leaves = [tensor.clone().requires_grad_() for tensor in (query, key, value)]
    output = attend(*leaves, layout, heads, p, None)
    output.backward(upstream)

    doubles = [tensor.detach().double().requires_grad_() for tensor in (query, key, value)]
    parts, visible, kept = [], 0, 0
    for start, length in zip(sequences.offsets.tolist(), lengths, strict=False):
        rows = slice(start, start + length)
        query_HLd, key_HLd, value_HLd = (one[rows].view(length, heads, size).transpose(0, 1) for one in doubles)
        scores = query_HLd @ key_HLd.transpose(1, 2) / size**0.5
        if causal:
            scores = scores.masked_fill(torch.ones(length, length).triu(1).bool().cuda(), -torch.inf)
        mask = dropped[rows, :, :length].transpose(0, 1) != 0
        visible += int((scores.softmax(-1) > 1e-3).sum())
        kept += int((mask & (scores.softmax(-1) > 1e-3)).sum())
        mixed = (scores.softmax(-1) * mask / (1 - p)) @ value_HLd
        parts.append(mixed.transpose(0, 1).reshape(length, -1))
    expected = torch.cat(parts)
    expected.backward(upstream.double())
    assert abs(kept / visible - (1 - p)) < 0.02
    for got, wanted in zip(
        [output, *(leaf.grad for leaf in leaves)], [expected, *(d.grad for d in doubles)], strict=True
    ):
        assert got is not None and wanted is not None
        assert (got.double() - wanted).norm() / wanted.norm() < 2e-2
