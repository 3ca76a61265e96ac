"""ONNX files: onnxruntime computes what torch does, also with padding on the left; faults are named."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from tests.model.reference import HEADS, configuration_of, our_class, padded_batch, randomize
from xlmrxl_train.cli import main
from xlmrxl_train.errors import CheckpointError
from xlmrxl_train.inference.export import onnx_file
from xlmrxl_train.inference.export.onnx_file import check_onnx, write_onnx
from xlmrxl_train.model import PreTrained

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def build(head: str, **overrides: object) -> PreTrained:
    torch.manual_seed(0)
    model = our_class(head)(configuration_of(head, **overrides)).eval()
    randomize(model)
    return model


def test_a_classifier_is_exported_and_checked(tmp_path: Path, capsys: Capture) -> None:
    model, target = build("SequenceClassification"), tmp_path / "out"
    model.save_pretrained(tmp_path / "m")
    assert main(["export", str(tmp_path / "m"), "--to", "onnx", "--output", str(target)]) == 0
    said = capsys.readouterr().err
    assert f"written: {target / 'model.onnx'}\n" in said
    assert "batches of 1 and 3, lengths 1, 7, 33; largest difference from torch " in said
    assert sorted(path.name for path in target.iterdir()) == ["config.json", "model.onnx"]
    session = onnxruntime.InferenceSession(str(target / "model.onnx"))
    assert [entry.shape for entry in session.get_inputs()] == [["batch", "sequence"]] * 2
    ids, mask = padded_batch([11, 3, 1, 40, 8], side="left")
    (logits,) = session.run(["logits"], {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(logits, model(ids, mask).logits.numpy(), atol=1e-5)
    other = build("SequenceClassification", initializer_range=0.2)
    with pytest.raises(CheckpointError, match=r"must compute what torch does, but logits differs by .* and length 1\."):
        check_onnx(other, target / "model.onnx")
    (target / "model.onnx").write_bytes(b"short")
    with pytest.raises(CheckpointError, match=r"model\.onnx must be read by onnxruntime, got .* Export again\."):
        check_onnx(model, target / "model.onnx")


def test_what_computes_something_else_is_not_left_behind(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    build("").save_pretrained(tmp_path / "m")
    monkeypatch.setattr(onnx_file, "TOLERANCE", -1.0)
    assert main(["export", str(tmp_path / "m"), "--to", "onnx", "--output", str(tmp_path / "out")]) == 2
    assert "must compute what torch does" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("head", ["", *(head for head in HEADS if head != "CausalLM")])
def test_every_head(head: str, tmp_path: Path) -> None:
    model = build(head)
    write_onnx(model, tmp_path / "model.onnx", external=head == "MaskedLM")
    assert check_onnx(model, tmp_path / "model.onnx") < 1e-5
    assert (tmp_path / "model.onnx.data").exists() == (head == "MaskedLM")


@pytest.mark.parametrize("values", [{}, {"is_decoder": False}])
def test_decoders_are_refused(values: dict[str, object], tmp_path: Path, capsys: Capture) -> None:
    build("CausalLM", **values).save_pretrained(tmp_path / "m")
    assert main(["export", str(tmp_path / "m"), "--to", "onnx", "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "--to onnx is for the encoder and its task heads, got XLMRobertaXLForCausalLM" in said
    assert ("with is_decoder=true" in said) == (not values) and not (tmp_path / "out").exists()


def test_missing_packages_are_named(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    build("").save_pretrained(tmp_path / "m")
    monkeypatch.setattr(onnx_file, "PACKAGES", ("onnx", "no_such_package"))
    words = ["export", str(tmp_path / "m"), "--to", "onnx", "--output", str(tmp_path / "out")]
    assert main(words) == 2
    assert capsys.readouterr().err == (
        "error: --to onnx needs the packages onnx, no_such_package, found no no_such_package. "
        "Run pip install 'xlmrxl_train[onnx]'.\n"
    )
    assert main([*words, "--dtype", "bf16"]) == 2
    assert "--dtype must be fp32 for ONNX, got bf16: onnxruntime lacks kernels" in capsys.readouterr().err


def test_a_full_disk_is_named(tmp_path: Path, capsys: Capture) -> None:
    build("").save_pretrained(tmp_path / "m")
    (tmp_path / "file").write_text("")
    assert main(["export", str(tmp_path / "m"), "--to", "onnx", "--output", str(tmp_path / "file/out")]) == 2
    assert "file/out cannot be written: Not a directory. Check the path and the free" in capsys.readouterr().err
