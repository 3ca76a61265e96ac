"""Packed sequences: groups, and packed calls against padded ones."""

import itertools
import random

import pytest
import torch

from tests.model.reference import (
    HEADS,
    compare_gradients,
    configuration,
    configuration_of,
    our_class,
    padded_batch,
    randomize,
)
from xlmrxl_train.errors import DataError
from xlmrxl_train.model import PackedSequences
from xlmrxl_train.model.packed import _COST_PER_PADDED_TOKEN, _GROUP_OVERHEAD, _cut

LENGTHS = {
    "descending": [40, 33, 33, 20, 8, 8, 5, 1],
    "ascending": [1, 5, 8, 8, 20, 33, 33, 40],
    "shuffled": [8, 40, 1, 33, 20, 5, 33, 8],
    "equal": [7, 7, 7],
    "one": [5],
}


def cost(descending: tuple[int, ...], sizes: list[int]) -> float:
    total, first = 0.0, 0
    for size in sizes:
        longest = descending[first]
        total += size * longest * (longest + _COST_PER_PADDED_TOKEN) + _GROUP_OVERHEAD
        first += size
    return total


def test_cuts_are_the_cheapest() -> None:
    random.seed(0)
    for _ in range(30):
        lengths = tuple(sorted((random.randint(1, 150) for _ in range(random.randint(1, 8))), reverse=True))
        for max_groups in (1, 2, 3, 8):
            got = _cut(lengths, max_groups)
            assert sum(got) == len(lengths) and len(got) <= max_groups
            best = min(
                cost(lengths, [b - a for a, b in itertools.pairwise([0, *cuts, len(lengths)])])
                for count in range(min(max_groups, len(lengths)))
                for cuts in itertools.combinations(range(1, len(lengths)), count)
            )
            assert cost(lengths, got) == pytest.approx(best)


@pytest.mark.parametrize("name", LENGTHS)
@pytest.mark.parametrize("max_groups", [1, 3, 8])
def test_every_token_has_one_place(name: str, max_groups: int) -> None:
    lengths = [length * 10 for length in LENGTHS[name]]
    sequences = PackedSequences.from_lengths(lengths, max_groups=max_groups)
    assert sequences.offsets.dtype == torch.int32
    assert sequences.offsets.diff().tolist() == lengths and sequences.lengths == tuple(lengths)
    assert sum(group.num_sequences for group in sequences.groups) == len(lengths)
    assert len(sequences.groups) <= max_groups
    assert sequences.max_length == max(lengths) and sequences.num_tokens == sum(lengths)
    if sequences.rows is not None:
        assert sequences.places is not None
        assert sequences.rows[sequences.places].tolist() == list(range(sum(lengths)))
        num_rows = sequences.groups[-1].stop
        assert len(sequences.rows) == num_rows
        padding = [] if sequences.padding_rows is None else sequences.padding_rows.tolist()
        assert sorted([*sequences.places.tolist(), *padding]) == list(range(num_rows))
    else:
        assert len(sequences.groups) == 1 or name != "shuffled"
    assert sequences.one_group().order == tuple(range(len(lengths)))


def test_equal_lengths_need_no_index_and_no_mask() -> None:
    sequences = PackedSequences.from_lengths([7, 7, 7])
    assert sequences.rows is None and sequences.places is None and sequences.padding_rows is None
    assert [group.key_bias for group in sequences.groups] == [None]
    assert sequences.one_group() is sequences


@pytest.mark.parametrize("name", LENGTHS)
@pytest.mark.parametrize("head", ["", *HEADS])
def test_packed_equals_padded(head: str, name: str) -> None:
    torch.manual_seed(0)
    model = our_class(head)(configuration_of(head))
    randomize(model)
    twin = our_class(head)(model.config)
    twin.load_state_dict(model.state_dict())
    lengths = LENGTHS[name]
    if head == "MultipleChoice" and len(lengths) % 2:
        lengths = [*lengths, lengths[-1]]
    ids, mask = padded_batch(lengths)
    keep = mask.bool()
    packed = {"input_ids": ids[keep], "sequences": PackedSequences.from_lengths(lengths)}
    padded = {"input_ids": ids, "attention_mask": mask}
    if head == "MultipleChoice":
        padded = {key: value.view(-1, 2, value.shape[1]) for key, value in padded.items()}
        packed["num_choices"] = 2
    if head in ("TokenClassification", "MaskedLM", "CausalLM"):
        labels = (ids % 3) if head == "TokenClassification" else ids.masked_fill(torch.rand(ids.shape) < 0.5, -100)
        labels = labels.masked_fill(~keep, -100)
        labels[-1, 0] = 2
        labels[lengths.index(max(lengths)), 1] = 2
        padded["labels"], packed["labels"] = labels, labels[keep]
    elif head == "QuestionAnswering":
        for key in ("start_positions", "end_positions"):
            padded[key] = packed[key] = torch.tensor([length - 1 for length in lengths])
    elif head:
        padded["labels"] = packed["labels"] = torch.arange(len(padded["input_ids"])) % 2
    got, expected = model(**packed), twin(**padded)
    if not head:
        torch.testing.assert_close(got.last_hidden_state, expected.last_hidden_state[keep], atol=1e-5, rtol=0)
        torch.testing.assert_close(got.pooler_output, expected.pooler_output, atol=1e-5, rtol=0)
        return
    for key in ("logits", "start_logits", "end_logits"):
        if key in got:
            reference = expected[key] if head in ("SequenceClassification", "MultipleChoice") else expected[key][keep]
            torch.testing.assert_close(got[key], reference, atol=1e-5, rtol=0)
    assert ("logits" in got) == (head not in ("MaskedLM", "CausalLM", "QuestionAnswering"))
    assert got.num_targets.item() == expected.num_targets.item() > 0
    torch.testing.assert_close(got.loss, expected.loss, atol=0, rtol=1e-5)
    got.loss.backward()
    expected.loss.backward()
    compare_gradients(model, twin)


def test_choices_of_sorted_sequences() -> None:
    torch.manual_seed(0)
    model = our_class("MultipleChoice")(configuration()).eval()
    ids, mask = padded_batch([3, 9, 5, 7])
    keep = mask.bool()
    expected = model(input_ids=ids[keep], sequences=PackedSequences.from_lengths([3, 9, 5, 7]), num_choices=2).logits
    order = [1, 3, 2, 0]
    got = model(
        input_ids=torch.cat([ids[row][keep[row]] for row in order]),
        sequences=PackedSequences.from_lengths([9, 7, 5, 3]),
        choice_index=torch.tensor([[3, 0], [2, 1]]),
    ).logits
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


def test_language_model_rows() -> None:
    torch.manual_seed(0)
    model = our_class("MaskedLM")(configuration()).eval()
    ids, sequences = torch.randint(3, 97, (12,)), PackedSequences.from_lengths([7, 5])
    whole = model(input_ids=ids, sequences=sequences).logits
    rows = torch.tensor([1, 8])
    torch.testing.assert_close(model(input_ids=ids, sequences=sequences, rows=rows).logits, whole[rows])
    labels = torch.full((12,), -100).index_fill(0, rows, 4)
    found, given = (model(input_ids=ids, sequences=sequences, labels=labels, rows=r) for r in (None, rows))
    assert found.loss == given.loss and found.num_targets == 2 and found.logits is None
    torch.testing.assert_close(found.target_losses.sum(), found.loss_sum.detach())
    none = model(input_ids=ids, sequences=sequences, labels=torch.full((12,), -100))
    assert none.loss_sum == 0 and none.num_targets == 0
    none.loss_sum.backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())


def test_packed_attentions_and_embeddings() -> None:
    torch.manual_seed(0)
    model = our_class("")(configuration()).eval()
    ids, mask = padded_batch([4, 6])
    keep = mask.bool()
    sequences = PackedSequences.from_lengths([4, 6])
    got = model(input_ids=ids[keep], sequences=sequences, output_attentions=True, output_hidden_states=True)
    expected = model(ids, mask, output_attentions=True, output_hidden_states=True)
    torch.testing.assert_close(got.attentions[1][0, :, :4], expected.attentions[1][0, :, :4])
    torch.testing.assert_close(got.hidden_states[1], expected.hidden_states[1][keep])
    embedded = torch.randn(2, 6, 32)
    packed = model(inputs_embeds=embedded[keep], sequences=sequences).last_hidden_state
    padded = model(inputs_embeds=embedded, attention_mask=mask).last_hidden_state[keep]
    torch.testing.assert_close(packed, padded, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda _: PackedSequences.from_lengths([]), "lengths must name at least one sequence, got none."),
        (lambda _: PackedSequences.from_lengths([3, 0]), "must have at least 1 token, got 0 in sequence 1."),
        (lambda m: m(), "exactly one of input_ids and inputs_embeds must be given, got none."),
        (lambda m: m(torch.ones(2, 3).long(), inputs_embeds=torch.ones(2, 3, 32)), "got both. Pass one of them."),
        (lambda m: m(torch.ones(1, 65).long(), torch.ones(1, 65)), "a sequence must have at most 64 tokens, got 65."),
        (
            lambda m: m(torch.ones(70).long(), sequences=PackedSequences.from_lengths([70])),
            "a sequence must have at most 64 tokens, got 70.",
        ),
        (lambda m: m(torch.ones(5).long()), "a padded input must have 2 dimensions, got 1."),
        (
            lambda m: m(torch.ones(2, 3).long(), torch.ones(2, 2)),
            "must have the shape of the input, (2, 3), got (2, 2)",
        ),
        (lambda m: m(torch.ones(2, 3).long(), torch.tensor([[1, 1, 0], [0, 0, 0]])), "got 0 in sequence 1."),
        (
            lambda m: m(torch.ones(5).long(), sequences=PackedSequences.from_lengths([2, 2])),
            "a packed input must have the 4 tokens of its sequences, got 5.",
        ),
    ],
)
def test_messages(call: object, message: str) -> None:
    with pytest.raises(DataError) as error:
        call(our_class("")(configuration()))  # type: ignore[operator]
    assert message in str(error.value)


def test_packed_states_to_look_at_need_their_lengths() -> None:
    model = our_class("")(configuration(is_decoder=True, add_cross_attention=True))
    with pytest.raises(DataError) as error:
        model(
            input_ids=torch.ones(5).long(),
            sequences=PackedSequences.from_lengths([2, 3]),
            encoder_hidden_states=torch.zeros(4, 32),
        )
    wanted = "encoder_sequences must be given with packed encoder_hidden_states, got none. Pass it."
    assert str(error.value) == wanted


def test_choices_must_be_told() -> None:
    model = our_class("MultipleChoice")(configuration())
    with pytest.raises(DataError, match="num_choices or choice_index must be given with sequences, got neither"):
        model(input_ids=torch.ones(5).long(), sequences=PackedSequences.from_lengths([2, 3]))


@pytest.mark.parametrize("implementation", ["grouped", "sdpa", "eager"])
@pytest.mark.parametrize("head", ["SequenceClassification", "MultipleChoice"])
@pytest.mark.parametrize("name", ["descending", "shuffled", "equal"])
def test_the_last_layer_of_first_tokens_alone_is_the_whole_one(head: str, implementation: str, name: str) -> None:
    """Asking for hidden states takes the way through all tokens of the last layer."""
    torch.manual_seed(0)
    lengths = LENGTHS[name][: len(LENGTHS[name]) // 2 * 2]
    model = our_class(head)(configuration(attn_implementation=implementation))
    randomize(model)
    twin = our_class(head)(model.config)
    twin.load_state_dict(model.state_dict())
    batch = {
        "input_ids": torch.randint(3, 97, (sum(lengths),)),
        "sequences": PackedSequences.from_lengths(lengths),
        "labels": torch.arange(len(lengths) // (2 if head == "MultipleChoice" else 1)) % 2,
    }
    if head == "MultipleChoice":
        batch["num_choices"] = 2
    rows: list[int] = []
    model.roberta.encoder.layer[-1].output.register_forward_hook(lambda *call: rows.append(len(call[2])))
    got, expected = model(**batch), twin(**batch, output_hidden_states=True)
    assert rows == [len(lengths)] and len(expected.hidden_states) == model.config.num_hidden_layers + 1
    torch.testing.assert_close(got.logits, expected.logits, atol=1e-5, rtol=0)
    got.loss.backward()
    expected.loss.backward()
    compare_gradients(model, twin)
