"""Quantized weights: close to the original, saved and loaded without loss, small, and shown per language."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.inference.finished import finished_run
from tests.model.reference import HEADS, configuration_of, our_class, padded_batch, randomize
from xlmrxl_train import pipeline
from xlmrxl_train.cli import main
from xlmrxl_train.errors import CheckpointError, ConfigError
from xlmrxl_train.evaluation.side_by_side import Difference, divergence
from xlmrxl_train.model import (
    ModelOutput,
    PackedSequences,
    PreTrained,
    QuantizationConfig,
    XLMRobertaXLConfig,
    XLMRobertaXLForMaskedLM,
    XLMRobertaXLForSequenceClassification,
    prepacked,
    quantized_weights,
)
from xlmrxl_train.model import quantization as module
from xlmrxl_train.model.quantization import quantized_entries
from xlmrxl_train.model.quantized_weights import IntegerWeight, is_quantized, num_bytes

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
INT8 = QuantizationConfig(weights="int8")
INT4 = QuantizationConfig(weights="int4", group_size=32)
SMALLEST = QuantizationConfig(weights="int4", group_size=32, embeddings="int8")


def save(head: str, folder: Path, **overrides: object) -> Path:
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128} | overrides
    model = our_class(head)(configuration_of(head, **sizes))
    randomize(model)
    model.save_pretrained(folder)
    return folder


def size_of(model: PreTrained, config: QuantizationConfig | None) -> int:
    """Return the bytes of a model's weights; it may be on the meta device."""
    if config is None:
        return 2 * model.num_parameters()  # bfloat16
    return sum(entry.num_bytes for entry in quantized_entries(model, config, model.get_parameter))


@pytest.mark.parametrize("config", [INT8, INT4, SMALLEST], ids=["int8", "int4", "int4 and int8 embeddings"])
@pytest.mark.parametrize("head", ["", *HEADS])
def test_saved_and_loaded_again_it_is_the_same(head: str, config: QuantizationConfig, tmp_path: Path) -> None:
    source = save(head, tmp_path / "source")
    original = our_class(head).from_pretrained(source, dtype=torch.bfloat16)
    quantized = our_class(head).from_pretrained(source, quantization_config=config)
    quantized.save_pretrained(tmp_path / "small")
    again = our_class(head).from_pretrained(tmp_path / "small")
    assert again.quantization == config and again.dtype == torch.bfloat16 and not again.training
    ids, mask = padded_batch([9, 4])
    if head == "MultipleChoice":
        ids, mask = torch.stack([ids, ids.flip(0)], 1), torch.stack([mask, mask.flip(0)], 1)
    with torch.no_grad():
        first, second, third = (model(ids, mask) for model in (original, quantized, again))
    name = next(name for name in ("logits", "start_logits", "last_hidden_state") if name in first)
    assert torch.equal(second[name], third[name])
    real = first[name].float().abs() < 1e30
    gap = (first[name].float() - second[name].float())[real].norm() / first[name].float()[real].norm()
    assert 1e-4 < gap < (0.1 if config is INT8 else 0.7)
    again.save_pretrained(tmp_path / "third")
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "small" / file).read_bytes() == (tmp_path / "third" / file).read_bytes()
    kinds = {name for name, parameter in quantized.named_parameters() if is_quantized(parameter)}
    embedding = {name for name in kinds if name.endswith("word_embeddings.weight")}
    assert bool(embedding) == (config is SMALLEST)
    assert len(kinds - embedding) == 2 * 6 and all(".layer." in name for name in kinds - embedding)


def test_int4_is_as_close_as_what_torchao_makes_by_itself() -> None:
    from torchao.prototype.quantization.int4 import Int4OpaqueTensor

    torch.manual_seed(0)
    weight = torch.randn(32, 64).bfloat16()
    integers = IntegerWeight.rounded(weight, "int4", 32)
    values = quantized_weights._apart(integers.qdata).float().view(32, 2, 32)
    assert integers.zero_point is not None
    plain = (values - 8) * integers.scale.float()[..., None] + integers.zero_point.float()[..., None]
    features = torch.randn(5, 64).bfloat16()
    got = torch.nn.functional.linear(features, integers.to_torchao(torch.device("cpu")))
    torch.testing.assert_close(got.float(), features.float() @ plain.view(32, 64).t(), rtol=0.02, atol=0.1)
    theirs = torch.nn.functional.linear(features, Int4OpaqueTensor.from_hp(weight, [1, 32]))
    exact = features.float() @ weight.float().t()
    assert (got - exact).norm() < 1.05 * (theirs - exact).norm() < 0.2 * exact.norm()
    assert (plain.view(32, 64) - weight.float()).abs().max() < integers.scale.float().max()


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_rows_are_rounded_by_themselves(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    weight = torch.randn(40, 64)
    whole = IntegerWeight.rounded(weight, kind, 32)
    monkeypatch.setattr(quantized_weights, "_ROUNDED_ELEMENTS", 7 * 64)
    for name, part in IntegerWeight.rounded(weight, kind, 32).parts.items():
        assert torch.equal(part, whole.parts[name])


def test_vocabulary_of_integers_gives_logits_and_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = save("MaskedLM", tmp_path / "m")
    model = XLMRobertaXLForMaskedLM.from_pretrained(source, quantization_config=SMALLEST)
    plain = XLMRobertaXLForMaskedLM.from_pretrained(source, quantization_config=INT4)
    assert model.lm_head.decoder.weight is model.roberta.embeddings.word_embeddings.weight
    sequences = PackedSequences.from_lengths([6, 3])
    ids = torch.randint(5, 97, (9,))
    labels = ids.where(torch.arange(9) % 2 == 0, -100)
    with torch.no_grad():
        whole = model(ids, sequences=sequences).logits
        monkeypatch.setattr(quantized_weights, "_CHUNK_ELEMENTS", 200)
        pieces = model(ids, sequences=sequences).logits
        losses = model(ids, sequences=sequences, labels=labels).target_losses
        other = plain(ids, sequences=sequences).logits
    torch.testing.assert_close(pieces, whole, rtol=0.02, atol=0.02)
    rows = labels.ne(-100)
    expected = torch.nn.functional.cross_entropy(whole[rows].float(), labels[rows], reduction="none")
    torch.testing.assert_close(losses, expected, rtol=0.02, atol=0.03)
    assert not torch.equal(whole, other) and (whole - other).abs().max() < 0.5


def test_another_library_s_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"quantization_config must be a QuantizationConfig, got a dict\. Write Q"):
        our_class("").from_pretrained(save("", tmp_path), quantization_config={"weights": "int4"})


def test_prepacking_leaves_integers_alone(tmp_path: Path) -> None:
    model = our_class("").from_pretrained(save("", tmp_path / "m"), quantization_config=INT8)
    ids, mask = padded_batch([9, 4])
    with torch.no_grad():
        expected = model(ids, mask).last_hidden_state
        with prepacked(model):
            assert torch.equal(model(ids, mask).last_hidden_state, expected)


def test_sizes_of_xl() -> None:
    """On the meta device: nothing is allocated."""
    with torch.device("meta"):
        model = XLMRobertaXLForMaskedLM(XLMRobertaXLConfig())
    sizes = [
        size_of(model, config) / 1e9
        for config in (
            None,
            QuantizationConfig(weights="int8"),
            QuantizationConfig(weights="int4"),
            QuantizationConfig(weights="int4", embeddings="int8"),
        )
    ]
    assert sizes == pytest.approx([6.97, 4.15, 2.82, 2.18], abs=0.03)


def test_files_are_small_and_hold_plain_tensors(tmp_path: Path) -> None:
    source = save("SequenceClassification", tmp_path / "m", hidden_size=128, intermediate_size=512, vocab_size=200)
    assert main(["quantize", str(source), "--to", "int4", "--output", str(tmp_path / "small")]) == 0
    model = XLMRobertaXLForSequenceClassification.from_pretrained(tmp_path / "small")
    file = tmp_path / "small/model.safetensors"
    tensors = load_file(file)
    assert {value.dtype for value in tensors.values()} == {torch.bfloat16, torch.uint8}
    config = model.quantization
    assert config is not None and config.group_size == 128
    assert sum(value.nbytes for value in tensors.values()) == size_of(model, config)
    assert sum(num_bytes(parameter) for parameter in model.parameters()) == size_of(model, config)
    assert file.stat().st_size < (source / "model.safetensors").stat().st_size / 5
    direct = XLMRobertaXLForSequenceClassification.from_pretrained(
        source, quantization_config=QuantizationConfig(weights="int4")
    )
    direct.save_pretrained(tmp_path / "direct")
    for name, value in load_file(tmp_path / "direct/model.safetensors").items():
        assert torch.equal(value, tensors[name]), name


def test_a_run_is_quantized_and_its_cost_shown(tmp_path: Path, capsys: Capture) -> None:
    run, target = finished_run(tmp_path), tmp_path / "small"
    words = ["quantize", str(run), "--to", "int4", "--group-size", "32", "--embeddings", "int8"]
    assert main([*words, "--output", str(target)]) == 0
    printed = capsys.readouterr()
    assert (
        f"written: {target}, 0." in printed.err
        and " MB of weights; " in printed.err
        and "quantization.md, quantization.json" in printed.err
    )
    values = json.loads((target / "quantization.json").read_text())
    assert values["quantization"]["embeddings"] == "int8" and set(values["languages"]) == {"en", "de"}
    report = json.loads((run / "report.json").read_text())
    for code, found in values["languages"].items():
        assert found["n"] == 20 and found["original"]["accuracy"] == report["languages"][code]["accuracy"]
        low, high = found["interval"]["accuracy"]
        assert low <= found["changed"]["accuracy"] - found["original"]["accuracy"] <= high
        assert 0 < found["divergence"] < 0.1
    assert values["weights_bytes"]["quantized"] * 3 < values["weights_bytes"]["original"]
    assert "| language |  | CC-100, GiB | original | quantized | difference | 95 % interval | KL | n |" in printed.out
    assert "Weights of the layers: int4 in groups of 32. Embeddings: int8. Heads: bf16." in printed.out
    assert "| tokens per second |" in printed.out and printed.out.strip() == (target / "quantization.md").read_text(
        ).strip()  # fmt: skip
    assert main(["quantize", str(run), "--to", "int8", "--output", str(tmp_path / "b"), "--no-evaluate"]) == 0
    assert "not scored, as asked: what it costs in each language is not known" in capsys.readouterr().err
    assert main(["quantize", str(target), "--to", "int8", "--output", str(tmp_path / "c")]) == 2
    assert "A quantized model must be made from weights that are not quantized, got" in capsys.readouterr().err
    for to in ("transformers", "onnx"):
        assert main(["export", str(target), "--to", to, "--output", str(tmp_path / "d")]) == 2
        assert "must be made from weights that are not quantized" in capsys.readouterr().err


def test_without_a_test_set_it_is_quantized_and_not_scored(tmp_path: Path, capsys: Capture) -> None:
    run = finished_run(tmp_path)
    config = (run / "config.yaml").read_text()
    assert "test-{language}.tsv.gz" in config
    (run / "config.yaml").write_text(config.replace("test-{language}.tsv.gz", "none-{language}.tsv.gz"))
    assert main(["quantize", str(run), "--to", "int8", "--output", str(tmp_path / "small")]) == 0
    assert "\nnot scored: " in capsys.readouterr().err
    assert pipeline("text-classification", tmp_path / "small", device=-1)("hello")


def test_worst_languages_are_those_that_lose_most() -> None:
    values = {"language": "en", "n": 3, "interval": {}, "divergence": None}
    better = Difference(original={"accuracy": 0.5}, changed={"accuracy": 0.6}, **values)
    worse = Difference(original={"perplexity": 5.0}, changed={"perplexity": 6.0}, **values)
    assert better.loss("accuracy") == pytest.approx(-0.1) and worse.loss("perplexity") == 1.0


def test_divergence_is_that_of_the_task() -> None:
    p, q = torch.tensor([[0.0, 1.0], [2.0, 2.0]]), torch.tensor([[1.0, 0.0], [2.0, 2.0]])
    expected = float((p.softmax(-1) * (p.log_softmax(-1) - q.log_softmax(-1))).sum())
    assert divergence(ModelOutput(logits=p), ModelOutput(logits=q), {}) == (pytest.approx(expected), 2)
    assert divergence(ModelOutput(logits=p), ModelOutput(logits=q), {}, "regression") == (0.0, 0)
    total, count = divergence(ModelOutput(logits=p), ModelOutput(logits=q), {}, "multi_label_classification")
    a, b = p.sigmoid(), q.sigmoid()
    binary = a * (a / b).log() + (1 - a) * ((1 - a) / (1 - b)).log()
    assert (total, count) == (pytest.approx(float(binary.sum()), abs=1e-6), 4)
    sequences = {"sequences": PackedSequences.from_lengths([2, 1])}
    left, right = torch.tensor([0.0, 1.0, 3.0]), torch.tensor([1.0, 0.0, 9.0])
    span = divergence(
        ModelOutput(start_logits=left, end_logits=left), ModelOutput(start_logits=right, end_logits=right), sequences
    )
    assert span == (pytest.approx(2 * expected), 4)
    assert divergence(ModelOutput(), ModelOutput(), {}) == (0.0, 0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weights": "int2"}, r"weights must be int8 \| int4, got 'int2'\."),
        ({"embeddings": "int4"}, r"embeddings must be bf16 \| int8, got 'int4'\."),
        ({"group_size": 100}, r"group_size must be 32 \| 64 \| 128, got 100\."),
    ],
)
def test_wrong_settings_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        QuantizationConfig(**values)  # type: ignore[arg-type]


def test_what_cannot_be_quantized_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    source = save("", tmp_path / "m")
    cls = our_class("")
    with pytest.raises(
        ConfigError, match=r"int4 weights must have a multiple of 16 rows and of group_size=128 columns"
    ):
        cls.from_pretrained(source, quantization_config=QuantizationConfig(weights="int4"))
    with pytest.raises(ConfigError, match=r"dtype must be torch\.bfloat16 or None for quantized weights, got torch.fl"):
        cls.from_pretrained(source, quantization_config=INT8, dtype=torch.float32)
    cls.from_pretrained(source, quantization_config=INT8).save_pretrained(tmp_path / "small")
    with pytest.raises(
        ConfigError, match=r"quantization_config must be that of .*small or None, got .* Take the model"
    ):
        cls.from_pretrained(tmp_path / "small", quantization_config=INT4)
    assert main(["quantize", str(source), "--to", "int8", "--group-size", "x", "--output", str(tmp_path / "o")]) == 2
    assert "--group-size must be a number, got 'x'. Write --group-size 128." in capsys.readouterr().err
    assert main(["quantize", str(source), "--to", "int8", "--output", str(tmp_path / "o")]) == 0
    assert "belongs to no finished run, which would say on what" in capsys.readouterr().err
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"need the package torchao, found none\. Run pip install 'xlmrxl_train\[quan"
    ):
        cls.from_pretrained(tmp_path / "small")


def test_damaged_folders_are_named(tmp_path: Path) -> None:
    source = save("", tmp_path / "m")
    cls = our_class("")
    cls.from_pretrained(source, quantization_config=INT4).save_pretrained(tmp_path / "small")
    tensors = load_file(tmp_path / "small/model.safetensors")
    name = "encoder.layer.1.output.dense.weight"
    for part, value, got in (
        ("scale", None, "none"),
        ("scale", tensors[f"{name}.scale"][:, :1].contiguous(), r"bfloat16 \(64, 1\)"),
        ("qdata", tensors[f"{name}.qdata"].char(), r"int8 \(64, 64\)"),
    ):
        shutil.copytree(tmp_path / "small", tmp_path / "bad", dirs_exist_ok=True)
        changed = {key: tensor for key, tensor in tensors.items() if key != f"{name}.{part}"}
        save_file(changed if value is None else changed | {f"{name}.{part}": value}, tmp_path / "bad/model.safetensors")
        with pytest.raises(CheckpointError, match=rf"must hold {name}\.{part} as .*, got {got}\. Quantize the model"):
            cls.from_pretrained(tmp_path / "bad")
    changed = {key: tensor for key, tensor in tensors.items() if not key.startswith(name)}
    save_file(changed, tmp_path / "bad/model.safetensors")
    with pytest.raises(CheckpointError, match=rf"missing: roberta\.{name}"):
        cls.from_pretrained(tmp_path / "bad")
    file = tmp_path / "bad/config.json"
    values = json.loads(file.read_text())
    for damage, message in (
        ({"quant_method": "awq"}, "must be of quant_method xlmrxl_train, got awq"),
        ([1], r"must be of quant_method xlmrxl_train, got \[1\]"),
        (values["quantization_config"] | {"weights": "int3"}, r"config\.json: quantization_config: weights must be"),
    ):
        file.write_text(json.dumps(values | {"quantization_config": damage}))
        with pytest.raises(CheckpointError, match=message):
            cls.from_pretrained(tmp_path / "bad")
