"""Our six heads and the bare model against transformers, on the same weights."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.model.reference import (
    HEADS,
    compare_gradients,
    configuration,
    configuration_of,
    difference,
    padded_batch,
    pair,
)
from xlmrxl_train.model import XLMRobertaXLConfig

SHAPES = {
    "right": ([12, 3, 7, 12, 1], "right"),
    "left": ([12, 3, 7, 12, 1], "left"),
    "unpadded": ([9, 9, 9, 9], "right"),
    "one": ([11], "right"),
    "all short": ([5, 4], "right"),
}


def batch(shape: str) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    lengths, side = SHAPES[shape]
    return padded_batch(lengths, side=side, width=14 if shape == "all short" else None)


def targets(head: str, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Return labels whose loss transformers and we define alike."""
    if head == "SequenceClassification":
        return {"labels": torch.randint(0, 3, (len(ids),))}
    if head == "TokenClassification":
        return {"labels": torch.randint(0, 3, ids.shape).masked_fill(mask == 0, -100)}
    if head == "MultipleChoice":
        return {"labels": torch.arange(len(ids)) % 2}
    if head in ("MaskedLM", "CausalLM"):
        labels = ids.masked_fill((mask == 0) | (torch.rand(ids.shape) < 0.5), -100)
        last = int(mask[0].nonzero()[-1])
        labels[0, last] = ids[0, last]
        if head == "CausalLM":  # the Hub predicts a left-padded row's first token from padding
            first = mask.argmax(1)
            labels[torch.arange(len(ids)), first] = -100
        return {"labels": labels}
    return {"start_positions": torch.tensor([2] * len(ids)), "end_positions": torch.tensor([4] * len(ids))}


def to_the_left(values: Tensor, mask: Tensor) -> Tensor:
    """Move the real tokens of left-padded rows to the front."""
    order = mask.argsort(dim=-1, descending=True, stable=True)
    return values.gather(-1, order)


@pytest.mark.parametrize("size", ["tiny", "odd"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("head", HEADS)
def test_heads(head: str, shape: str, size: str, tmp_path: Path) -> None:
    mine, theirs = pair(tmp_path, head, configuration_of(head, size))
    ids, mask = batch(shape)
    labels = targets(head, ids, mask)
    if head == "QuestionAnswering" and mask.min() == 0:
        labels = {}  # the Hub's loss sums over padding
    inputs = {"input_ids": ids, "attention_mask": mask}
    if head == "MultipleChoice":
        inputs = {name: value[:, None].expand(-1, 2, -1).clone() for name, value in inputs.items()}
        other = torch.randint(3, 97, ids.shape)
        inputs["input_ids"][:, 1] = torch.where(mask == 1, other, ids).flip(0)
        inputs["attention_mask"][:, 1] = mask.flip(0)
    pools = head in ("SequenceClassification", "MultipleChoice")
    reference_inputs = inputs
    if pools and shape == "left":  # the Hub would pool column 0, which is padding
        reference_inputs = {name: to_the_left(value, inputs["attention_mask"]) for name, value in inputs.items()}
    got = mine(**inputs, **labels, output_hidden_states=True, output_attentions=True)
    expected = theirs(**reference_inputs, **labels, output_hidden_states=True, output_attentions=True)
    by_token = mask if head in ("MaskedLM", "CausalLM", "TokenClassification", "QuestionAnswering") else None
    for name in ("logits", "start_logits", "end_logits"):
        if name in expected:
            assert got[name].shape == expected[name].shape
            assert torch.isfinite(got[name]).all()
            assert difference(got[name], expected[name], by_token) < 1e-5
    assert len(got.hidden_states) == len(expected.hidden_states)
    if reference_inputs is inputs:
        flat_mask = inputs["attention_mask"].flatten(0, -2)
        for ours, reference in zip(got.hidden_states, expected.hidden_states, strict=True):
            assert difference(ours, reference, flat_mask) < 1e-5
        for ours, reference in zip(got.attentions, expected.attentions, strict=True):
            assert difference(ours.transpose(1, 2), reference.transpose(1, 2), flat_mask) < 1e-5
    if labels:
        assert got.loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)
        assert (got.loss_sum / got.num_targets).item() == pytest.approx(got.loss.item(), rel=1e-6)
        assert got.loss.dtype == got.loss_sum.dtype == got.num_targets.dtype == torch.float32
        mine(**inputs, **labels).loss.backward()
        expected.loss.backward()
        compare_gradients(mine, theirs)


@pytest.mark.parametrize("shape", SHAPES)
def test_bare_model_with_pooler(shape: str, tmp_path: Path) -> None:
    mine, theirs = pair(tmp_path, "", configuration())
    ids, mask = batch(shape)
    got, expected = mine(ids, mask), theirs(ids, mask)
    assert difference(got.last_hidden_state, expected.last_hidden_state, mask) < 1e-5
    assert (got.last_hidden_state[mask == 0] == 0).all()
    assert difference(got.pooler_output[mask[:, 0] == 1], expected.pooler_output[mask[:, 0] == 1]) < 1e-5
    assert list(got) == ["last_hidden_state", "pooler_output"]
    assert got[0] is got["last_hidden_state"] is got.last_hidden_state and "logits" not in got


def test_length_512(tmp_path: Path) -> None:
    config = configuration(max_position_embeddings=514)
    mine, theirs = pair(tmp_path, "TokenClassification", config, "sdpa")
    ids, mask = padded_batch([512, 300])
    assert difference(mine(ids, mask).logits, theirs(ids, mask).logits, mask) < 1e-5


def test_without_attention_mask_padding_is_read_but_not_numbered(tmp_path: Path) -> None:
    mine, theirs = pair(tmp_path, "", configuration())
    ids, mask = batch("right")
    assert mask.min() == 0
    assert difference(mine(ids).last_hidden_state, theirs(ids).last_hidden_state) < 1e-5


def test_embeddings_and_ids_of_the_caller(tmp_path: Path) -> None:
    mine, theirs = pair(tmp_path, "", configuration(type_vocab_size=2))
    ids, mask = batch("right")
    options = {"token_type_ids": torch.randint(0, 2, ids.shape), "position_ids": torch.randint(0, 60, ids.shape)}
    got, expected = mine(ids, mask, **options), theirs(ids, mask, **options)
    assert difference(got.last_hidden_state, expected.last_hidden_state, mask) < 1e-5
    embedded = torch.randn(*ids.shape, 32)
    got, expected = (
        mine(inputs_embeds=embedded, attention_mask=mask),
        theirs(inputs_embeds=embedded, attention_mask=mask),
    )
    assert difference(got.last_hidden_state, expected.last_hidden_state, mask) < 1e-5


@pytest.mark.parametrize("problem", ["regression", "multi_label_classification", "single_label_classification", None])
@pytest.mark.parametrize("num_labels", [1, 3])
def test_problem_types(problem: str | None, num_labels: int, tmp_path: Path) -> None:
    if num_labels == 1 and problem in ("single_label_classification", "multi_label_classification"):
        pytest.skip("one class is no classification")
    config = configuration(num_labels=num_labels, problem_type=problem)
    mine, theirs = pair(tmp_path, "SequenceClassification", config)
    ids, mask = batch("right")
    labels = torch.randint(0, 3, (5,)) if problem == "single_label_classification" else torch.rand(5, num_labels)
    if num_labels == 1:
        labels = labels.squeeze(1)
    got, expected = mine(ids, mask, labels=labels), theirs(ids, mask, labels=labels)
    assert got.loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)
    assert mine.config.problem_type == problem
    got.loss.backward()
    expected.loss.backward()
    compare_gradients(mine, theirs)


@pytest.mark.parametrize("backend", ["grouped", "eager", "sdpa"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_cross_attention(backend: str, side: str, tmp_path: Path) -> None:
    mine, theirs = pair(tmp_path, "CausalLM", configuration(is_decoder=True, add_cross_attention=True))
    mine.attn_implementation = backend
    torch.manual_seed(2)
    ids, mask = padded_batch([3, 8, 5, 8], side=side)
    _, encoder_mask = padded_batch([6, 2, 10, 4], side=side)
    states = torch.randn(4, 10, 32)
    options = {"encoder_hidden_states": states, "encoder_attention_mask": encoder_mask, "use_cache": False}
    labels = targets("CausalLM", ids, mask)
    got = mine(ids, mask, **options, **labels)
    expected = theirs(ids, mask, **options, **labels)
    assert difference(got.logits, expected.logits, mask) < 1e-5
    got.loss.backward()
    expected.loss.backward()
    compare_gradients(mine, theirs)
    if backend == "eager":
        got = mine(ids, mask, **options, output_attentions=True)
        expected = theirs(ids, mask, **options, output_attentions=True)
        for ours, reference in zip(got.cross_attentions, expected.cross_attentions, strict=True):
            assert difference(ours.transpose(1, 2), reference.transpose(1, 2), mask) < 1e-5


@pytest.mark.parametrize("backend", ["grouped", "eager", "sdpa"])
@pytest.mark.parametrize("cross", [False, True])
def test_cache(backend: str, cross: bool, tmp_path: Path) -> None:
    """Step by step equals at once; position ids go on where the last step ended, also in padded batches."""
    mine, theirs = pair(tmp_path, "CausalLM", configuration(is_decoder=True, add_cross_attention=cross))
    mine.attn_implementation = backend
    ids, _ = padded_batch([9, 9, 9])
    options = {"encoder_hidden_states": torch.randn(3, 5, 32)} if cross else {}
    whole = theirs(ids, **options).logits
    assert difference(mine(ids, **options).logits, whole) < 1e-5
    first = mine(ids[:, :4], **options, use_cache=True)
    assert first.past_key_values.get_seq_length() == 4
    second = mine(ids[:, 4:6], **options, past_key_values=first.past_key_values)
    third = mine(ids[:, 6:7], **options, past_key_values=second.past_key_values)
    assert third.past_key_values.get_seq_length() == 7
    stepped = torch.cat([first.logits, second.logits, third.logits], 1)
    assert difference(stepped, whole[:, :7]) < 1e-5

    left, mask = padded_batch([3, 6, 5], side="left")
    begun = mine(left, mask, **options, use_cache=True)
    following = torch.tensor([[7], [8], [9]])
    longer = torch.cat([mask, torch.ones(3, 1, dtype=torch.long)], 1)
    got = mine(following, longer, **options, past_key_values=begun.past_key_values).logits[:, -1]
    expected = mine(torch.cat([left, following], 1), longer, **options).logits[:, -1]
    assert difference(got, expected) < 1e-5


@pytest.mark.parametrize("head", ["MaskedLM", "SequenceClassification"])
def test_bfloat16(head: str, tmp_path: Path) -> None:
    mine, theirs = pair(tmp_path, head, configuration(initializer_range=0.05))
    reference = theirs(*batch("right")).logits
    mine, theirs = mine.bfloat16(), theirs.bfloat16()
    ids, mask = batch("right")
    by_token = mask if head == "MaskedLM" else None
    got = mine(ids, mask).logits
    assert got.dtype == torch.bfloat16
    assert difference(got, theirs(ids, mask).logits, by_token) < 2e-2
    mine.roberta.residual_dtype = torch.float32
    assert difference(mine(ids, mask).logits, reference, by_token) < 2e-2


def test_defaults_are_the_hubs() -> None:
    import transformers

    theirs = transformers.XLMRobertaXLConfig().to_dict()
    mine = XLMRobertaXLConfig().to_dict()
    for key in mine.keys() & theirs.keys() - {"id2label", "architectures"}:
        assert mine[key] == theirs[key], key
