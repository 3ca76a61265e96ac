"""The encoder-decoder beside transformers' EncoderDecoderModel: logits, loss, greedy translations, files."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import EncoderDecoderModel

from xlmrxl_train.errors import CheckpointError, ConfigError, DataError
from xlmrxl_train.model import (
    PackedSequences,
    XLMRobertaXLConfig,
    XLMRobertaXLEncoderDecoder,
    XLMRobertaXLForCausalLM,
    XLMRobertaXLForMaskedLM,
)

SHAPE = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
         "max_position_embeddings": 40, "initializer_range": 0.3}  # fmt: skip
SOURCES = [[0, 10, 11, 12, 13, 14, 2], [0, 20, 2], [0, 30, 31, 32, 2], [0, 21, 2]]
TARGETS = [[15, 2], [25, 26, 27, 28, 2], [35, 36, 2], [9, 2]]


@pytest.fixture(scope="module")
def model() -> XLMRobertaXLEncoderDecoder:
    torch.manual_seed(0)
    return XLMRobertaXLEncoderDecoder(XLMRobertaXLConfig(**SHAPE)).eval()


@pytest.fixture(scope="module")
def saved(model: XLMRobertaXLEncoderDecoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    model.save_pretrained(folder)
    return folder


def padded(sequences: list[list[int]], fill: int) -> torch.Tensor:
    longest = max(map(len, sequences))
    return torch.tensor([row + (longest - len(row)) * [fill] for row in sequences])


def packed(sequences: list[list[int]]) -> torch.Tensor:
    return torch.cat([torch.tensor(row) for row in sequences])


def called_padded() -> dict[str, Any]:
    input_ids = padded(SOURCES, 1)
    decoder_input_ids = padded([[0, *target[:-1]] for target in TARGETS], 1)
    return {
        "input_ids": input_ids,
        "attention_mask": input_ids.ne(1).long(),
        "decoder_input_ids": decoder_input_ids,
        "decoder_attention_mask": decoder_input_ids.ne(1).long(),
    }


def called_packed(*, max_groups: int = 8) -> dict[str, Any]:
    return {
        "input_ids": packed(SOURCES),
        "decoder_input_ids": packed([[0, *target[:-1]] for target in TARGETS]),
        "labels": packed(TARGETS),
        "sequences": PackedSequences.from_lengths([len(row) for row in SOURCES], max_groups=max_groups),
        "decoder_sequences": PackedSequences.from_lengths([len(row) for row in TARGETS]),
    }


@pytest.mark.filterwarnings("ignore:Version v4.12.0 introduces:FutureWarning")  # transformers, of its own past
@torch.no_grad()
def test_transformers_reads_what_was_saved_and_computes_the_same(model, saved: Path) -> None:
    theirs = EncoderDecoderModel.from_pretrained(saved).eval()
    labels = padded(TARGETS, -100)
    expected, found = theirs(**called_padded(), labels=labels), model(**called_padded(), labels=labels)
    real = called_padded()["decoder_attention_mask"].bool()
    torch.testing.assert_close(found.logits[real], expected.logits[real], rtol=0, atol=1e-5)
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-5, atol=0)
    assert found.num_targets == sum(map(len, TARGETS))
    shifted = {name: called_padded()[name] for name in ("input_ids", "attention_mask")}
    torch.testing.assert_close(model(**shifted, labels=labels).loss, expected.loss, rtol=1e-5, atol=0)

    translated = theirs.generate(
        **shifted, max_new_tokens=9, do_sample=False, num_beams=1, pad_token_id=1, eos_token_id=2
    )
    ours = model(**shifted, generate=True, max_new_tokens=9).generated_ids
    assert ours.tolist() == translated[:, 1:].tolist()  # theirs begin with <s>
    assert len({tuple(row) for row in ours.tolist()}) > 1


@torch.no_grad()
def test_what_transformers_saved_is_read(saved: Path, model, tmp_path: Path) -> None:
    EncoderDecoderModel.from_pretrained(saved).save_pretrained(tmp_path)  # with a pooler, which nothing here reads
    again = XLMRobertaXLEncoderDecoder.from_pretrained(tmp_path)
    assert again.load_report is not None and not again.load_report.new
    assert again.load_report.unused == ("encoder.roberta.pooler.dense.bias", "encoder.roberta.pooler.dense.weight")
    for (name, ours), (other, theirs) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert name == other and torch.equal(ours, theirs)
    assert again.decoder.lm_head.decoder.weight is again.decoder.roberta.embeddings.word_embeddings.weight


@torch.no_grad()
@pytest.mark.parametrize("backend", ["grouped", "sdpa", "eager"])
@pytest.mark.parametrize("max_groups", [1, 8])
def test_packed_is_as_padded(model, backend: str, max_groups: int) -> None:
    expected = model(**called_padded(), labels=padded(TARGETS, -100)).loss_sum
    translated = model(input_ids=padded(SOURCES, 1), attention_mask=padded(SOURCES, 1).ne(1), generate=True,
                       max_new_tokens=9).generated_ids  # fmt: skip
    model.attn_implementation = backend
    assert model.encoder.attn_implementation == model.decoder.roberta.attn_implementation == backend
    arguments = called_packed(max_groups=max_groups)
    torch.testing.assert_close(model(**arguments).loss_sum, expected, rtol=1e-5, atol=0)
    source = {name: arguments[name] for name in ("input_ids", "sequences")}
    assert torch.equal(model(**source, generate=True, max_new_tokens=9).generated_ids, translated)
    model.attn_implementation = "auto"


@torch.no_grad()
def test_each_step_is_the_likeliest_token_after_those_before_it(model) -> None:
    """The cache against the whole translation read at once, without one."""
    ids = model(input_ids=torch.tensor(SOURCES[:1]), generate=True, max_new_tokens=12, num_tokens=50).generated_ids
    read = torch.cat([torch.tensor([[0]]), ids[:, :-1]], 1)
    logits = model(input_ids=torch.tensor(SOURCES[:1]), decoder_input_ids=read).logits
    assert torch.equal(logits[..., :50].argmax(-1), ids)
    assert ids.shape[1] > 3


@torch.no_grad()
def test_steps_that_only_others_need_change_nothing(model) -> None:
    arguments = {"input_ids": torch.tensor(SOURCES[1:2]), "generate": True, "max_new_tokens": 20}
    asked: list[bool] = []

    def others_go_on(flag: bool) -> bool:
        asked.append(flag)
        return len(asked) < 17

    bias = model.decoder.lm_head.bias
    bias[2] += 4.0  # so that </s> comes soon
    alone = model(**arguments).generated_ids
    among_others = model(**arguments, any_rank=others_go_on).generated_ids
    bias[2] -= 4.0
    assert alone.shape[1] < 17 == len(asked) and torch.equal(alone, among_others)
    assert asked == [True] * (alone.shape[1] - 1) + [False] * (18 - alone.shape[1])
    assert alone[0, -1] == 2 and 2 not in alone[0, :-1]


@torch.no_grad()
def test_tokens_beyond_the_vocabulary_are_never_generated(model) -> None:
    source = {"input_ids": padded(SOURCES, 1), "attention_mask": padded(SOURCES, 1).ne(1), "generate": True}
    model.decoder.lm_head.bias[55:] += 50.0
    free, kept = (model(**source, max_new_tokens=5, num_tokens=count).generated_ids for count in (None, 55))
    model.decoder.lm_head.bias[55:] -= 50.0
    assert free.min() >= 55 > kept.max()


def test_every_parameter_learns(model) -> None:
    model.train()
    model(**called_packed()).loss_sum.backward()
    assert not [
        name for name, parameter in model.named_parameters() if not parameter.grad.any() and "key.bias" not in name
    ]
    model.zero_grad()
    model.eval()


@pytest.mark.parametrize(
    ("kind", "head"), [(XLMRobertaXLForMaskedLM, True), (XLMRobertaXLForCausalLM, True), (None, False)]
)
def test_both_parts_begin_from_one_checkpoint(
    kind, head: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = XLMRobertaXLConfig(**SHAPE, is_decoder=kind is XLMRobertaXLForCausalLM)
    plain = (kind or XLMRobertaXLForMaskedLM)(config)
    (plain if kind else plain.roberta).save_pretrained(tmp_path)
    model = XLMRobertaXLEncoderDecoder.from_pretrained(tmp_path, is_decoder=False)
    name = "embeddings.word_embeddings.weight"
    encoder, decoder = model.encoder.get_parameter(name), model.decoder.roberta.get_parameter(name)
    assert torch.equal(encoder, plain.roberta.get_parameter(name)) and torch.equal(encoder, decoder)
    assert encoder is not decoder
    report = model.load_report
    new = {"cross-attention"} | (set() if head else {"lm_head"})
    said = report.lines(tmp_path)
    assert report.kept == (("decoder.lm_head",) if head else ()) and report.unused == ()
    assert said[-1] == f"{', '.join(sorted(new))} newly initialised: {tmp_path} holds none"
    assert all(".crossattention." in name or ("lm_head" in name and not head) for name in report.new)
    assert "decoder.roberta.encoder.layer.1.crossattention.self.query.weight" in caplog.text
    with torch.device("meta"):
        outline = XLMRobertaXLEncoderDecoder(XLMRobertaXLConfig(**SHAPE))
    source = outline.source(tmp_path, seed=1)
    assert set(source.new) == set(report.new)
    for name in ("encoder.encoder.layer.0.output.dense.weight", "decoder.roberta.encoder.layer.0.output.dense.weight"):
        expected = plain.roberta.encoder.layer[0].output.dense.weight.flatten()[5:9]
        assert torch.equal(source.values(name, 5, 4), expected)


def test_its_own_files_are_read_in_parts(saved: Path, model) -> None:
    with torch.device("meta"):
        outline = XLMRobertaXLEncoderDecoder(XLMRobertaXLEncoderDecoder.read_config(saved))
    source = outline.source(saved, seed=1)
    assert (
        not source.new
        and source.report is not None
        and source.report.lines(saved) == [f"decoder.lm_head as in {saved}"]
    )
    for name, parameter in model.named_parameters():
        assert torch.equal(source.values(name, 0, 3), parameter.flatten()[:3])


def test_faults_are_named(model, saved: Path, tmp_path: Path) -> None:
    for key, value in (("bos_token_id", None), ("eos_token_id", [2, 3])):
        with pytest.raises(ConfigError, match=rf"^{key} must be one token's number in an encoder-decoder, got "):
            XLMRobertaXLEncoderDecoder(XLMRobertaXLConfig(**SHAPE, **{key: value}))
    with pytest.raises(ConfigError, match=r"^is_decoder must be false for the encoder of an encoder-decoder, got true"):
        XLMRobertaXLEncoderDecoder(XLMRobertaXLConfig(**SHAPE, is_decoder=True))
    ids = torch.tensor(SOURCES[:1])
    for count in (0, 39):
        with pytest.raises(
            DataError, match=rf"^max_new_tokens must be from 1 to 38, the model's positions, got {count}"
        ):
            model(input_ids=ids, generate=True, max_new_tokens=count)
    for arguments in ({}, called_packed() | {"decoder_input_ids": None}):
        with pytest.raises(DataError, match=r"^decoder_input_ids must be given, or labels in a padded call, or gener"):
            model(**{"input_ids": ids} | arguments)
    values = json.loads((saved / "config.json").read_text(encoding="utf-8"))
    for change, message in (
        ({"decoder": None}, r"config\.json must describe an encoder and a decoder, got architectures, "),
        (
            {"decoder": values["decoder"] | {"intermediate_size": 64, "hidden_size": 16}},
            r"must have an encoder and a decoder of the same shape, got another hidden_size, intermediate_size\. ",
        ),
    ):
        shutil.copytree(saved, tmp_path / "m", dirs_exist_ok=True)
        (tmp_path / "m" / "config.json").write_text(json.dumps(values | change))
        with pytest.raises(CheckpointError, match=message):
            XLMRobertaXLEncoderDecoder.from_pretrained(tmp_path / "m")


@torch.no_grad()
def test_keys_are_cut_as_queries_are() -> None:
    """Two packed batches in their own order with two groups each, cut at different places."""
    queries, keys = (PackedSequences.from_lengths(lengths) for lengths in ([200, 9, 8], [210, 205, 9]))
    assert queries.order == keys.order and len(queries.groups) == len(keys.groups) == 2
    assert not keys.cut_as(queries)
    torch.manual_seed(0)
    config = XLMRobertaXLConfig(**SHAPE | {"max_position_embeddings": 300}, is_decoder=True, add_cross_attention=True)
    decoder = XLMRobertaXLForCausalLM(config).eval()
    states = torch.randn(keys.num_tokens, 32)
    ids = torch.randint(5, 60, (queries.num_tokens,))
    arguments = {"input_ids": ids, "sequences": queries, "encoder_hidden_states": states, "encoder_sequences": keys}
    expected = decoder.roberta(**arguments).last_hidden_state
    decoder.attn_implementation = "eager"
    torch.testing.assert_close(decoder.roberta(**arguments).last_hidden_state, expected, rtol=0, atol=1e-5)
