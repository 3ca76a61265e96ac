"""Exported folders: transformers computes what we do, the card says what the run says, faults are named."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file, save_file

from tests.inference.finished import finished_run
from tests.model.reference import HEADS, configuration_of, our_class, padded_batch, randomize
from xlmrxl_train.cli import main
from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.errors import CheckpointError, ConfigError, RunError
from xlmrxl_train.inference.export.card import write_card
from xlmrxl_train.inference.export.exporting import export
from xlmrxl_train.inference.export.transformers_folder import check_written, copy_tokenizer, entries_of
from xlmrxl_train.inference.export.usage import snippet
from xlmrxl_train.inference.model_folder import open_model_folder
from xlmrxl_train.session import SAMPLE_TOKENIZER

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose files tests do not change."""
    return finished_run(tmp_path_factory.mktemp("runs"))


def save(head: str, folder: Path, **overrides: object) -> Path:
    """Write a tiny model with a head and the sample's tokenizer."""
    torch.manual_seed(0)
    model = our_class(head)(configuration_of(head, vocab_size=1025, **overrides))
    randomize(model)
    model.save_pretrained(folder)
    Tokenizer.from_path(SAMPLE_TOKENIZER).save(folder)
    return folder


@pytest.mark.parametrize("head", ["", *HEADS])
def test_transformers_computes_the_same_with_every_head(head: str, tmp_path: Path) -> None:
    source, target = save(head, tmp_path / "source"), tmp_path / "target"
    assert any(line == f"written: {target}, read back and equal" for line in export(str(source), to="transformers",
               output=target))  # fmt: skip
    auto = getattr(transformers, f"AutoModelFor{head}" if head else "AutoModel")
    mine, theirs = our_class(head).from_pretrained(target), auto.from_pretrained(target).eval()
    ids, mask = padded_batch([9, 4])
    if head == "MultipleChoice":
        ids, mask = torch.stack([ids, ids.flip(0)], 1), torch.stack([mask, mask.flip(0)], 1)
    with torch.no_grad():
        got, expected = mine(ids, mask), theirs(ids, attention_mask=mask)
    real = mask.bool()
    for name in ("logits", "start_logits", "end_logits", "pooler_output"):
        if name in expected:
            left, right = (output[name] for output in (got, expected))
            if left.shape[: real.dim()] == real.shape and head != "MultipleChoice":
                left, right = left[real], right[real]
            torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("head", ["", *HEADS])
def test_the_lines_of_the_card_run(head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    folder = save(head, tmp_path)
    monkeypatch.chdir(folder)
    text = snippet(our_class(head).__name__)
    exec(text.split("```python\n")[1].split("```")[0], {})
    assert capsys.readouterr().out.strip() or head == "QuestionAnswering"  # whose end may come before its start


def test_a_run_is_exported_with_its_card(run: Path, tmp_path: Path, capsys: Capture) -> None:
    target = tmp_path / "out"
    assert main(["export", str(run), "--to", "transformers", "--output", str(target), "--license", "mit"]) == 0
    said = capsys.readouterr().err
    assert f"written: {target}, read back and equal" in said and f"written: {target / 'README.md'}" in said
    assert transformers.AutoTokenizer.from_pretrained(target).mask_token == "<mask>"
    text = (target / "README.md").read_text(encoding="utf-8")
    _, head, page = text.split("---\n", 2)
    values = yaml.safe_load(head)
    report = json.loads((run / "report.json").read_text())
    assert values["license"] == "mit" and values["language"] == ["en", "de"]
    assert values["pipeline_tag"] == "text-classification" and "base_model" not in values
    results = values["model-index"][0]["results"]
    assert [result["metrics"][0]["value"] for result in results] == [
        pytest.approx(report["languages"][code]["accuracy"], abs=1e-6) for code in ("en", "de")
    ]
    assert "They began as random numbers." in page
    assert report["setting"] in page and "95 % interval" in page and "data.limit=20" in page
    assert "AutoModelForSequenceClassification" in page and "Weights: mit." in page
    assert "process(es) on cpu" in page and f"torch {torch.__version__.split('+')[0]}" in page
    assert str(tmp_path.parent) not in text and os.fspath(run) not in text


def test_stand_ins_and_earlier_runs_are_stamped_without_folders(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run/report.json"
    values = json.loads(file.read_text())
    earlier = {key: value for key, value in values["protocol"].items() if key != "parents"}
    values["protocol"] |= {
        "stand_ins": ["half of it instead of all"],
        "model": "/home/me/runs/first/model",
        "parents": [earlier | {"run": "/home/me/runs/first"}],
    }
    file.write_text(json.dumps(values))
    list(export(str(tmp_path / "run"), to="transformers", output=tmp_path / "out"))
    page = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert "**Stand-in training data**, so not comparable" in page and "- **Stand-in**: half of it instead" in page
    assert "# first on en: demo" in page and "Began from first: demo" in page and "/home" not in page


def test_without_a_licence_the_card_says_so(run: Path, tmp_path: Path) -> None:
    list(export(str(run / "model"), to="transformers", output=tmp_path / "out", dtype="bf16"))
    text = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert "**not stated**; whoever publishes them has to say" in text and "license:" not in text
    assert {value.dtype for value in load_file(tmp_path / "out/model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "bfloat16"


def test_what_does_not_come_from_a_run_has_no_card(tmp_path: Path) -> None:
    lines = list(export(str(save("TokenClassification", tmp_path / "m")), to="transformers", output=tmp_path / "out"))
    assert lines[-1] == (
        f"no model card: {tmp_path / 'm'} does not belong to a finished run, which would say how it was trained"
    )
    assert not (tmp_path / "out/README.md").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "export needs one run folder, model folder or Hub id, got none. Write xlmrxl export runs/xnli/seed-1."),
        (["a", "b"], "export needs one run folder, model folder or Hub id, got 2."),
        (["a", "--to", "gguf"], "--to must be transformers | onnx | adapter, got 'gguf'."),
        (["a", "--to="], "--to must have a value, got nothing. Write --to transformers."),
        (["a", "--too=onnx"], "--too is not a flag. Did you mean"),
        (["./none"], "model.path: folder not found: ./none"),
    ],
)
def test_wrong_words_are_named(words: list[str], message: str, capsys: Capture) -> None:
    more = [] if any(word.startswith("--to") for word in words) else ["--to", "onnx"]
    assert main(["export", *words, *more, "--output", "out"]) == 2
    assert message in capsys.readouterr().err


def test_missing_flags_are_named_together(capsys: Capture) -> None:
    assert main(["export", "a"]) == 2
    said = capsys.readouterr().err
    assert "export needs --to, got none. Write --to transformers." in said
    assert "export needs --output, got none. Write --output folder/." in said
    assert main(["export", "--help"]) == 0 and "--to onnx --output folder/" in capsys.readouterr().out


def test_an_output_that_is_there_is_not_touched(tmp_path: Path, capsys: Capture) -> None:
    source = save("", tmp_path / "m")
    for place, message in (
        (str(source), "--output must be a new or an empty folder, got"),
        ("x" * 5000, "--output must be a path with names of at most 255 bytes, got xxx"),
        ("~no-such-user/x", "--output must be a path, got ~no-such-user/x, whose home folder is not known."),
    ):
        assert main(["export", str(source), "--to", "transformers", "--output", place]) == 2
        assert message in capsys.readouterr().err


def test_models_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    source = save("SequenceClassification", tmp_path / "m")
    file = source / "config.json"
    values = json.loads(file.read_text())
    for named in ([], ["BertModel"], "XLMRobertaXLModel"):
        file.write_text(json.dumps(values | {"architectures": named}))
        with pytest.raises(CheckpointError, match=r"config\.json must name one of XLMRobertaXLModel, .* Add the class"):
            open_model_folder(str(source))
    file.write_text(json.dumps(values | {"architectures": ["XLMRobertaXLForQuestionAnswering"], "id2label": None}))
    with pytest.raises(CheckpointError, match=r"must hold every weight of .*QuestionAnswering, got none of qa_outputs"):
        list(export(str(source), to="transformers", output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_what_was_written_is_compared(tmp_path: Path) -> None:
    source = open_model_folder(str(save("", tmp_path / "m")))
    model, entries = entries_of(source)
    shutil.copytree(source.path, tmp_path / "out")
    check_written(tmp_path / "out", model, entries)
    tensors = load_file(tmp_path / "out/model.safetensors")
    tensors["pooler.dense.bias"][3] += 1
    save_file(tensors, tmp_path / "out/model.safetensors")
    with pytest.raises(CheckpointError, match=r"must hold what was exported, but pooler\.dense\.bias differs\. Check"):
        check_written(tmp_path / "out", model, entries)
    with pytest.raises(CheckpointError, match=r"nowhere cannot be written: No such file or directory\. Check the path"):
        copy_tokenizer(source, tmp_path / "nowhere")


def test_a_run_without_scores_is_exported_too(tmp_path: Path, capsys: Capture) -> None:
    run = finished_run(tmp_path, 1, "evaluate.test=false")
    assert main(["export", str(run), "--to", "transformers", "--output", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert "Nothing was evaluated." in text and "model-index" not in text and "text-classification" in text
    words = ["average", str(run), str(finished_run(tmp_path, 2, "evaluate.test=false"))]
    assert main([*words, "--output", str(tmp_path / "soup")]) == 0
    assert "without scores; --evaluate adds them" in capsys.readouterr().err


def test_translation_models_are_read_by_others_as_they_are(tmp_path: Path) -> None:
    save("", tmp_path)
    values = json.loads((tmp_path / "config.json").read_text()) | {"model_type": "encoder-decoder"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=r"export, average and quantize are for models of one stack, got the transl"):
        open_model_folder(str(tmp_path))


def test_a_run_that_lost_its_files_is_named(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    source = open_model_folder(str(tmp_path / "run"))
    with pytest.raises(CheckpointError, match=r"nowhere/README\.md cannot be written: No such file"):
        write_card(source, tmp_path / "nowhere")
    (tmp_path / "run/environment.json").write_text("[1]")
    with pytest.raises(RunError, match=r"environment\.json must say what the run ran on, but cannot be read: it must"):
        list(export(str(tmp_path / "run"), to="transformers", output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()  # so that the same command can be given again
