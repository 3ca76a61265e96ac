"""Files both ways: every format, every fault."""

import json
import os
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.model.reference import HEADS, configuration, configuration_of, our_class, pair, randomize, their_class
from xlmrxl_train.errors import CheckpointError, ConfigError
from xlmrxl_train.model import PreTrained, XLMRobertaXLConfig
from xlmrxl_train.model.writing import TensorEntry, write_checkpoint

IDS = torch.arange(3, 24).view(3, 7)


def saved(folder: Path, head: str = "MaskedLM", **options: object) -> PreTrained:
    torch.manual_seed(0)
    model = our_class(head)(configuration(**options)).eval()
    randomize(model)
    model.save_pretrained(folder)
    return model


def same(mine: PreTrained, other: torch.nn.Module) -> bool:
    expected = other.state_dict()
    return mine.state_dict().keys() == expected.keys() and all(
        torch.equal(tensor, expected[name]) for name, tensor in mine.state_dict().items()
    )


@pytest.mark.parametrize("head", ["", *HEADS])
@pytest.mark.parametrize("shard_bytes", [5e9, 20_000])
def test_there_and_back(head: str, shard_bytes: float, tmp_path: Path) -> None:
    mine, theirs = pair(tmp_path / "a", head, configuration_of(head))
    mine.save_pretrained(tmp_path / "b", max_shard_bytes=shard_bytes)
    assert (tmp_path / "b" / "model.safetensors.index.json").exists() == (shard_bytes < 1e9)
    loaded = their_class(head).from_pretrained(tmp_path / "b")
    assert same(mine, loaded)
    theirs.save_pretrained(tmp_path / "c", max_shard_size=int(shard_bytes))
    back = our_class(head).from_pretrained(tmp_path / "c")
    assert same(back, mine) and not back.training
    assert back.load_report is not None and back.load_report.new == () == back.load_report.unused
    again = our_class(head).from_pretrained(tmp_path / "b")
    assert same(again, mine)


def test_auto_model_reads_what_we_save(tmp_path: Path) -> None:
    mine = saved(tmp_path, "SequenceClassification", id2label={0: "yes", 1: "no"})
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert same(mine, theirs) and theirs.config.id2label == {0: "yes", 1: "no"}
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["XLMRobertaXLForSequenceClassification"]
    assert config["model_type"] == "xlm-roberta-xl" and config["dtype"] == "float32"


def test_an_engine_may_put_a_class_of_its_own_around_it() -> None:
    model = our_class("SequenceClassification")(configuration())
    model.__class__ = type(f"FSDP{type(model).__name__}", (type(model),), {"__module__": "torch.distributed.fsdp"})
    assert model.architecture == "XLMRobertaXLForSequenceClassification"


def test_tied_weights_are_stored_once(tmp_path: Path) -> None:
    saved(tmp_path)
    names = set(safetensors.torch.load_file(tmp_path / "model.safetensors"))
    assert "roberta.embeddings.word_embeddings.weight" in names and "lm_head.bias" in names
    assert not {"lm_head.decoder.weight", "lm_head.decoder.bias"} & names
    loaded = our_class("MaskedLM").from_pretrained(tmp_path)
    assert loaded.lm_head.decoder.weight is loaded.roberta.embeddings.word_embeddings.weight
    assert loaded.lm_head.decoder.bias is loaded.lm_head.bias


def test_untied_weights(tmp_path: Path) -> None:
    mine = saved(tmp_path, tie_word_embeddings=False)
    assert mine.lm_head.decoder.weight is not mine.roberta.embeddings.word_embeddings.weight
    back = our_class("MaskedLM").from_pretrained(tmp_path)
    assert same(back, mine)
    theirs = transformers.XLMRobertaXLForMaskedLM.from_pretrained(tmp_path)
    assert torch.equal(theirs.lm_head.decoder.weight, mine.lm_head.decoder.weight)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("legacy", [False, True])
def test_bin(shards: int, legacy: bool, tmp_path: Path) -> None:
    """Also with the constants and tied copies that older versions of transformers stored."""
    mine = saved(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    state = dict(mine.state_dict())
    state["roberta.embeddings.position_ids"] = torch.arange(66)[None]
    names = list(state)
    weight_map = {}
    for shard in range(shards):
        file = "pytorch_model.bin" if shards == 1 else f"pytorch_model-{shard + 1:05d}-of-{shards:05d}.bin"
        part = {name: state[name] for name in names[shard::shards]}
        weight_map.update(dict.fromkeys(part, file))
        torch.save(part, tmp_path / file, _use_new_zipfile_serialization=not legacy)
    if shards > 1:
        (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert same(our_class("MaskedLM").from_pretrained(tmp_path), mine)


def test_headless_under_a_task_head(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    base = saved(tmp_path, "")
    torch.manual_seed(5)
    first = our_class("SequenceClassification").from_pretrained(tmp_path, num_labels=4)
    torch.manual_seed(5)
    second = our_class("SequenceClassification").from_pretrained(tmp_path, num_labels=4)
    assert same(first, second)
    assert first.load_report.new == tuple(
        f"classifier.{n}.{p}" for n in ("dense", "out_proj") for p in ("weight", "bias")
    )
    assert first.load_report.unused == ("roberta.pooler.dense.bias", "roberta.pooler.dense.weight")
    assert "holds no classifier.dense.weight" in caplog.text
    assert first.config.num_labels == 4 and first.classifier.out_proj.weight.shape == (4, 32)
    assert first.classifier.dense.weight.std().item() == pytest.approx(0.1, rel=0.1)
    assert not first.classifier.dense.bias.any()
    assert torch.equal(first.roberta.encoder.LayerNorm.weight, base.encoder.LayerNorm.weight)


def test_one_head_under_another(tmp_path: Path) -> None:
    mine = saved(tmp_path, "MaskedLM")
    bare = our_class("").from_pretrained(tmp_path)
    assert bare.load_report.new == ("pooler.dense.weight", "pooler.dense.bias")
    assert "lm_head.dense.weight" in bare.load_report.unused
    assert torch.equal(bare.embeddings.word_embeddings.weight, mine.roberta.embeddings.word_embeddings.weight)
    tokens = our_class("TokenClassification").from_pretrained(tmp_path)
    tokens.save_pretrained(tmp_path / "t")
    sentence = our_class("SequenceClassification").from_pretrained(tmp_path / "t")
    assert set(sentence.load_report.unused) == {"classifier.weight", "classifier.bias"}
    masked = our_class("MaskedLM").from_pretrained(tmp_path / "t")
    assert masked.lm_head.decoder.weight is masked.roberta.embeddings.word_embeddings.weight
    assert set(masked.lm_head.layer_norm.weight.tolist()) == {1.0}


def test_decoder_from_an_encoder(tmp_path: Path) -> None:
    saved(tmp_path, "MaskedLM")
    decoder = our_class("CausalLM").from_pretrained(tmp_path, is_decoder=True, add_cross_attention=True)
    assert decoder.load_report.new and all(".crossattention." in name for name in decoder.load_report.new)
    norm = decoder.roberta.encoder.layer[0].crossattention.self_attn_layer_norm
    assert norm.weight.eq(1).all() and not norm.bias.any()


def test_other_number_of_labels(tmp_path: Path) -> None:
    mine = saved(tmp_path, "SequenceClassification")
    with pytest.raises(CheckpointError, match=r"shape: classifier.out_proj.weight must be \(5, 32\), got \(3, 32\)"):
        our_class("SequenceClassification").from_pretrained(tmp_path, num_labels=5)
    model = our_class("SequenceClassification").from_pretrained(tmp_path, num_labels=5, ignore_mismatched_sizes=True)
    assert model.load_report.new == ("classifier.out_proj.weight", "classifier.out_proj.bias")
    assert torch.equal(model.classifier.dense.weight, mine.classifier.dense.weight)


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_dtype(key: str, tmp_path: Path) -> None:
    mine = saved(tmp_path)
    model = our_class("MaskedLM").from_pretrained(tmp_path, **{key: torch.bfloat16}, device="cpu")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16} and model.dtype == torch.bfloat16
    assert torch.equal(model.lm_head.dense.weight, mine.lm_head.dense.weight.bfloat16())
    model.save_pretrained(tmp_path / "half")
    assert our_class("TokenClassification").from_pretrained(tmp_path / "half").classifier.weight.dtype == torch.bfloat16
    assert transformers.AutoModel.from_pretrained(tmp_path / "half").dtype == torch.bfloat16
    chosen = our_class("MaskedLM").from_pretrained(tmp_path, attn_implementation="eager")
    assert chosen.attn_implementation == "eager"


def test_unknown_keys_survive(tmp_path: Path) -> None:
    saved(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    values |= {"chunk_size_feed_forward": 3, "my_note": {"a": 1}, "position_embedding_type": "absolute"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    our_class("MaskedLM").from_pretrained(tmp_path).save_pretrained(tmp_path / "again")
    again = json.loads((tmp_path / "again" / "config.json").read_text())
    assert {key: again[key] for key in values} == values


def test_a_second_save_leaves_nothing_of_the_first(tmp_path: Path) -> None:
    mine = saved(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    for size in (20_000, 1e9, 40_000):
        mine.save_pretrained(tmp_path, max_shard_bytes=size)
        assert same(our_class("MaskedLM").from_pretrained(tmp_path), mine)
        kinds = {re.sub(r"\d+-of-\d+", "N", path.name) for path in tmp_path.iterdir()}
        weights = {"model.safetensors"} if size == 1e9 else {"model-N.safetensors", "model.safetensors.index.json"}
        assert kinds == {"config.json", "tokenizer.json"} | weights


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    mine = saved(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()

    def fail() -> torch.Tensor:
        raise RuntimeError("a rank died")

    entry = TensorEntry(name="x", dtype=torch.float32, shape=(2,), read=fail)
    with pytest.raises(RuntimeError):
        write_checkpoint(tmp_path, {}, [entry], 1e9)
    assert (tmp_path / "model.safetensors").read_bytes() == before and len(list(tmp_path.iterdir())) == 2
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(CheckpointError, match=r"cannot be written: .+\. Check the path and the free space"):
        mine.save_pretrained(blocked / "model")


def test_every_wrong_tensor_is_listed(tmp_path: Path) -> None:
    mine = saved(tmp_path)
    state = safetensors.torch.load_file(tmp_path / "model.safetensors")
    del state["roberta.encoder.LayerNorm.bias"], state["lm_head.dense.weight"]
    state["roberta.encoder.layer.0.output.dense.bias"] = torch.zeros(3)
    state["roberta.encoder.layer.7.output.dense.bias"] = torch.zeros(3)
    safetensors.torch.save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError) as error:
        type(mine).from_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    assert str(error.value).splitlines() == [
        f"{tmp_path} must hold the tensors of XLMRobertaXLForMaskedLM, got 4 faults. Check that config.json belongs to "
        "these weights, or give the right overrides (as num_labels=…):",
        f"  shape: roberta.encoder.layer.0.output.dense.bias must be (32,), got (3,) in {file}",
        "  missing: roberta.encoder.LayerNorm.bias",
        "  missing: lm_head.dense.weight",
        f"  unexpected: roberta.encoder.layer.7.output.dense.bias in {file}",
    ]


class Malicious:
    """Unpickling this would run a command."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch /tmp/xlmrxl-was-here",)


def spoil(folder: Path, how: str) -> Path:
    """Damage a saved model; return the file that is at fault."""
    good = folder / "model.safetensors"
    data = good.read_bytes()
    binary = folder / "pytorch_model.bin"
    if how == "truncated":
        good.write_bytes(data[: len(data) // 2])
    elif how == "html":
        good.write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>")
    elif how == "empty":
        good.write_bytes(b"")
    else:
        good.unlink()
        if how == "malicious bin":
            torch.save({"x": Malicious()}, binary)
        elif how == "malicious pickle":
            binary.write_bytes(pickle.dumps({"x": Malicious()}))
        elif how == "truncated bin":
            torch.save({"x": torch.zeros(1000)}, binary)
            binary.write_bytes(binary.read_bytes()[:900])
        elif how == "html bin":
            binary.write_text("<html>not found</html>")
        elif how == "no tensors":
            torch.save({"x": 3}, binary)
        return binary
    return good


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", "must be safetensors, got a damaged or different file"),
        ("html", "must be safetensors, got a damaged or different file"),
        ("empty", "must be safetensors, got a damaged or different file"),
        ("truncated bin", "must be a torch file, got a damaged or different file"),
        ("html bin", "must be a torch file, got a damaged or different file"),
        ("malicious bin", "got a pickle that would run code"),
        ("malicious pickle", "got a pickle that would run code"),
        ("no tensors", "must hold a dictionary of tensors."),
    ],
)
def test_damaged_files_are_named(how: str, message: str, tmp_path: Path) -> None:
    mine = saved(tmp_path)
    file = spoil(tmp_path, how)
    with pytest.raises(CheckpointError) as error:
        type(mine).from_pretrained(tmp_path)
    assert message in str(error.value) and str(file) in str(error.value)
    assert len(str(error.value)) < 600
    assert not Path("/tmp/xlmrxl-was-here").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"device": "moon"},
            r"device must be cpu, meta, or a GPU that is here, got 'moon'\. Leave it out for the CPU\.",
        ),
        ({"device": torch.cuda.device_count()}, r"device must be cpu, meta, or a GPU that is here, got \d"),
        ({"dtype": "bfloat16"}, r"dtype must be a floating one such as torch\.bfloat16, or None, got 'bfloat16'\. Set"),
        (
            {"torch_dtype": torch.int8},
            r"dtype must be a floating one such as torch\.bfloat16, or None, got torch\.int8",
        ),
    ],
)
def test_places_and_numbers_that_are_not_there(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        type(saved(tmp_path)).from_pretrained(tmp_path, **arguments)


def test_integers_are_no_weights(tmp_path: Path) -> None:
    mine = saved(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.bias"] = tensors["lm_head.bias"].int()
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors must hold lm_head\.bias as floating-point numbers, got"
    ):
        type(mine).from_pretrained(tmp_path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    mine = saved(tmp_path / "m")
    mine.save_pretrained(tmp_path / "m", max_shard_bytes=20_000)
    load = type(mine).from_pretrained
    folder = tmp_path / "m"
    index = folder / "model.safetensors.index.json"
    good = index.read_text()
    changed = json.loads(good)
    changed["weight_map"]["absent"] = next(iter(changed["weight_map"].values()))
    index.write_text(json.dumps(changed))
    with pytest.raises(CheckpointError, match="names tensors that no shard holds: absent"):
        load(folder)
    index.write_text("{")
    with pytest.raises(CheckpointError, match=r"index\.json must be an index of shards, got a damaged"):
        load(folder)
    index.write_text(good)
    next(folder.glob("model-00002*")).unlink()
    with pytest.raises(CheckpointError, match="names files that are missing: model-00002-of-"):
        load(folder)
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(CheckpointError, match=r"config\.json does not exist"):
        load(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"must hold model\.safetensors or pytorch_model\.bin, or shards"):
        load(folder)
    (folder / "config.json").write_text("<html>")
    with pytest.raises(CheckpointError, match=r"config\.json must be JSON, got"):
        load(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"must hold a JSON object, got list"):
        load(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 0}, "hidden_size must be an integer of at least 1, got 0."),
        ({"hidden_size": 30}, "hidden_size must be a multiple of num_attention_heads (4), got 30."),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob must be in [0, 1), got 1.0."),
        ({"hidden_act": "relu"}, 'hidden_act must be "gelu" (exact, erf), got "relu".'),
        ({"problem_type": "ranking"}, 'or null, got "ranking".'),
        (
            {"attn_implementation": "fast"},
            'attn_implementation must be one of auto, grouped, sdpa, varlen, eager, got "f',
        ),
        ({"add_cross_attention": True}, "add_cross_attention must be false unless is_decoder is true, got true."),
        ({"pad_token_id": 97}, "pad_token_id must be a row of the vocabulary (0 to 96), got 97."),
        ({"class_weights": [1.0]}, "class_weights must have num_labels (3) numbers, got 1."),
    ],
)
def test_configuration_faults(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        configuration(**options)
    assert message in str(error.value)


def test_configuration_faults_are_reported_together() -> None:
    with pytest.raises(ConfigError) as error:
        configuration(vocab_size=-1, hidden_act="silu", attention_probs_dropout_prob=2)
    assert len(error.value.faults) >= 3
    with pytest.raises(
        ConfigError, match=r'num_label must be a key of the model configuration.*Did you mean "num_labels"'
    ):
        XLMRobertaXLConfig.from_dict({}, num_label=3)
    with pytest.raises(ConfigError, match='model_type must be "xlm-roberta-xl", got "xlm-roberta"'):
        XLMRobertaXLConfig.from_dict({"model_type": "xlm-roberta"})


def test_question_answering_has_two_labels() -> None:
    with pytest.raises(ConfigError, match="num_labels must be 2 for question answering"):
        our_class("QuestionAnswering")(configuration(num_labels=3))


def test_cross_attention_must_be_built_in() -> None:
    model = our_class("CausalLM")(configuration(is_decoder=True))
    with pytest.raises(ConfigError, match="add_cross_attention must be true when encoder_hidden_states are given"):
        model(IDS, encoder_hidden_states=torch.zeros(3, 4, 32))
