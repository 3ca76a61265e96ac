"""Averages: the mean of every tensor in bounded memory, a run folder of its own, and scores beside the parts'."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.inference.finished import finished_run
from tests.model.reference import configuration, our_class
from xlmrxl_train.cli import main
from xlmrxl_train.errors import CheckpointError, ConfigError
from xlmrxl_train.evaluation.protocol import Protocol
from xlmrxl_train.inference import averaging
from xlmrxl_train.inference.averaging import average, check_alike, find_models
from xlmrxl_train.inference.soup import merged
from xlmrxl_train.model import XLMRobertaXLForSequenceClassification
from xlmrxl_train.training.export import weights_in

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two seeds of one recipe."""
    folder = tmp_path_factory.mktemp("runs")
    return [finished_run(folder, seed) for seed in (1, 2)]


def test_seeds_are_averaged_and_scored_beside_their_parts(runs: list[Path], tmp_path: Path, capsys: Capture) -> None:
    soup = tmp_path / "soup"
    assert main(["average", str(runs[0].parent / "seed-*/model"), "--output", str(soup), "--evaluate"]) == 0
    printed = capsys.readouterr()
    tensors = [load_file(folder / "model/model.safetensors") for folder in (*runs, soup)]
    for name, value in tensors[2].items():
        expected = (tensors[0][name].double() + tensors[1][name].double()) / 2
        assert torch.equal(value, expected.float()), name
    report = json.loads((soup / "report.json").read_text())
    assert report["notes"][0] == "The mean of the weights of seed-1, seed-2."
    assert report["protocol"]["recipe"] == "demo, average of 2" and report["protocol"]["steps"] == 4
    assert set(report["languages"]) == {"en", "de"}
    assert "| language |  | average | minus the parts' mean | 95 % interval | seed-1 | seed-2 |" in printed.out
    parts = [json.loads((run / "report.json").read_text())["languages"]["de"]["accuracy"] for run in runs]
    gap = report["languages"]["de"]["accuracy"] - sum(parts) / 2
    assert f"| {'-' if gap < 0 else '+'}{100 * abs(gap):.1f} |" in printed.out
    assert f"| {100 * parts[0]:.1f} | {100 * parts[1]:.1f} |" in printed.out
    assert main(["evaluate", str(soup)]) == 0  # it is a run folder
    again = json.loads((soup / "evaluation/sample_nli/report.json").read_text())
    assert again["languages"] == report["languages"]


def test_without_scores_it_still_says_what_it_was_trained_on(runs: list[Path], tmp_path: Path, capsys: Capture) -> None:
    assert main(["average", *map(str, runs), "--output", str(tmp_path / "soup")]) == 0
    said = capsys.readouterr().err
    assert "the mean of 2 models" in said and "report.json, without scores; --evaluate adds them" in said
    values = json.loads((tmp_path / "soup/report.json").read_text())
    assert values["protocol"]["train_languages"] == ["en"] and values["languages"] == {}
    shutil.copytree(runs[0] / "model", tmp_path / "bare")
    assert main(["average", str(runs[1]), str(tmp_path / "bare"), "--output", str(tmp_path / "other")]) == 0
    assert "bare belongs to no finished run, so what it was trained on is not known" in capsys.readouterr().err
    assert main(["average", str(runs[1]), str(tmp_path / "bare"), "--output", str(tmp_path / "x"), "--evaluate"]) == 2
    assert "--evaluate needs models of finished runs, whose test set it scores, got" in capsys.readouterr().err


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 5 steps with a checkpoint of each, whose last three it keeps; the first look at validation is best."""
    words = ["train.checkpoint_every=1", "train.max_steps=5", "train.keep_checkpoints=3", "data.limit=60",
             "evaluate.every=1", "evaluate.select=best", "optimizer.lr=1e-9"]  # fmt: skip
    return finished_run(tmp_path_factory.mktemp("kept"), 1, *words)


def test_the_last_checkpoints_are_averaged_and_scored_beside_the_last(
    kept: Path, tmp_path: Path, capsys: Capture
) -> None:
    mean = tmp_path / "mean"
    assert main(["average", str(kept), "--last", "3", "--output", str(mean), "--evaluate"]) == 0
    steps = [kept / f"checkpoints/step-0000000{step}" for step in (3, 4, 5)]
    weights = [{entry.name: entry.read() for entry in weights_in(step)} for step in steps]
    for name, value in load_file(mean / "model/model.safetensors").items():
        assert torch.equal(value, (sum(each[name].double() for each in weights) / 3).float()), name
    own, last = (json.loads((folder / "report.json").read_text()) for folder in (mean, mean / "last"))
    assert own["notes"][0] == "The mean of the weights after steps 3, 4, 5 of seed-1."
    assert own["protocol"]["recipe"] == "demo, average of the last 3 checkpoints"
    for protocol in (own["protocol"], last["protocol"]):
        assert (protocol["selected_step"], protocol["select_split"], protocol["select_languages"]) == (5, None, [])
    assert json.loads((kept / "report.json").read_text())["protocol"]["selected_step"] == 1
    assert not (mean / "last/model").exists() and (mean / "model/tokenizer.json").is_file()
    printed = capsys.readouterr().out
    assert "| language |  | average | minus the last checkpoint | 95 % interval | last |" in printed
    assert main(["average", str(kept), "--last", "2", "--output", str(tmp_path / "two")]) == 0
    assert "the mean of 2 checkpoints" in capsys.readouterr().err
    assert json.loads((tmp_path / "two/report.json").read_text())["languages"] == {}


def test_where_the_last_checkpoint_was_selected_its_own_report_is_beside(
    runs: list[Path], tmp_path: Path, capsys: Capture
) -> None:
    words = ["train.checkpoint_every=1", "train.keep_checkpoints=2", "data.limit=40"]
    run = finished_run(tmp_path, 3, *words)
    assert main(["average", str(run), "--last", "2", "--output", str(tmp_path / "mean"), "--evaluate"]) == 0
    assert "| 95 % interval | seed-3 |" in capsys.readouterr().out
    assert not (tmp_path / "mean/last").exists()


@pytest.mark.parametrize(
    ("last", "message"),
    [
        ("1", "--last must be a whole number from 2, got 1."),
        ("4", "--last must be at most 3, the last checkpoints that {run} has, got 4. Train with "
         "train.checkpoint_every, and train.keep_checkpoints so high."),
    ],
)  # fmt: skip
def test_so_many_checkpoints_must_be_there(
    kept: Path, tmp_path: Path, capsys: Capture, last: str, message: str
) -> None:
    assert main(["average", str(kept), "--last", last, "--output", str(tmp_path / "mean")]) == 2
    assert capsys.readouterr().err == f"error: {message.format(run=kept)}\n"
    assert not (tmp_path / "mean").exists()


def test_checkpoints_are_those_of_a_run_that_trained_its_model(kept: Path, tmp_path: Path, capsys: Capture) -> None:
    shutil.copytree(kept / "model", tmp_path / "bare")
    assert main(["average", str(tmp_path / "bare"), "--last", "2", "--output", str(tmp_path / "mean")]) == 2
    message = f"--last needs a finished run, whose checkpoints it averages, got {tmp_path / 'bare'}. Name its folder."
    assert capsys.readouterr().err == f"error: {message}\n"
    run = Path(shutil.copytree(kept, tmp_path / "adapted"))
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"tuning": {"name": "lora"}}))
    assert main(["average", str(run), "--last", "2", "--output", str(tmp_path / "mean")]) == 2
    assert capsys.readouterr().err == (
        "error: --last needs a run that trained the model itself, got tuning=lora. "
        "Average models of finished runs: leave --last out.\n"
    )


def test_labels_that_any_part_saw_were_seen() -> None:
    values = {
        "recipe": "r", "model": "m", "dataset": "d", "split": "test", "source": "files", "select_metric": "accuracy",
        "limit": None, "seed": 1, "steps": 2, "tokens": 3, "selected_step": 2,
    }  # fmt: skip
    first = Protocol(**values, train_languages=["en"], training={"d": ["en"]}, select_split=None, select_languages=[],
                     stand_ins=["a"])  # fmt: skip
    second = Protocol(**values, train_languages=["de"], training={"d": ["de"]}, select_split="validation",
                      select_languages=["fr"], stand_ins=["a", "b"])  # fmt: skip
    both = merged([first, second])
    assert both.seen_languages == {"en", "de", "fr"} and both.training == {"d": ["en", "de"]}
    assert both.stand_ins == ["a", "b"] and both.setting(["en", "fr"]) == "cross-lingual, selected with labels of fr"


def test_other_test_sets_are_not_scored_together(runs: list[Path], tmp_path: Path, capsys: Capture) -> None:
    shutil.copytree(runs[1], tmp_path / "run")
    file = tmp_path / "run/report.json"
    values = json.loads(file.read_text())
    values["protocol"]["dataset"] = "other"
    file.write_text(json.dumps(values))
    words = ["average", str(runs[0]), str(tmp_path / "run"), "--output", str(tmp_path / "soup"), "--evaluate"]
    assert main(words) == 2 and not (tmp_path / "soup").exists()
    assert "--evaluate needs runs of one test set, got other test, sample NLI test. Leave" in capsys.readouterr().err


def save(folder: Path, **overrides: object) -> Path:
    XLMRobertaXLForSequenceClassification(configuration(**overrides)).save_pretrained(folder)
    return folder


def test_models_that_differ_are_refused(tmp_path: Path) -> None:
    a, same = save(tmp_path / "a"), save(tmp_path / "same", hidden_dropout_prob=0.3)
    check_alike(find_models([str(a), str(same)]))
    for number, (overrides, message) in enumerate(
        [
            ({"hidden_size": 16}, r"hidden_size must be the same in all models, got 32 in .*a and 16 in"),
            ({"id2label": {0: "x", 1: "y", 2: "z"}}, r"id2label must be the same in all models, got .*LABEL_0"),
        ]
    ):
        other = save(tmp_path / f"b{number}", **overrides)
        with pytest.raises(ConfigError, match=message + r".*Average models of one shape and one task\."):
            check_alike(find_models([str(a), str(other)]))
    our_class("TokenClassification")(configuration()).save_pretrained(tmp_path / "c")
    with pytest.raises(ConfigError, match="architectures must be the same in all models"):
        check_alike(find_models([str(a), str(tmp_path / "c")]))
    (same / "tokenizer.json").write_text("other")
    with pytest.raises(ConfigError, match=r"The tokenizer must be the same in all models, got another one in .*same"):
        check_alike(find_models([str(a), str(same)]))


def test_a_flag_that_takes_no_value(capsys: Capture) -> None:
    assert main(["average", "a", "--evaluate=3", "--output", "soup"]) == 2
    assert capsys.readouterr().err == "error: --evaluate takes no value, got '3'. Write --evaluate alone.\n"


def test_at_least_two_models_are_needed(tmp_path: Path) -> None:
    a = save(tmp_path / "a")
    with pytest.raises(ConfigError, match="average needs at least two models, got 1"):
        find_models([str(a), str(tmp_path / "*")])
    with pytest.raises(ConfigError, match=r"average needs model folders, got .*z\*, which matches nothing\. Check"):
        find_models([str(tmp_path / "z*")])
    with pytest.raises(ConfigError, match=r"average needs model folders, got .*\*\*z: Invalid pattern: .* Write runs/"):
        find_models([str(tmp_path / "**z")])


def test_pieces_do_not_change_the_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [save(tmp_path / name) for name in "abc"]
    found = find_models(list(map(str, parts)))
    average(found, tmp_path / "whole")
    monkeypatch.setattr(averaging, "PIECE", 7)
    average(found, tmp_path / "pieces")
    assert (tmp_path / "whole/model.safetensors").read_bytes() == (tmp_path / "pieces/model.safetensors").read_bytes()
    tensors = load_file(parts[2] / "model.safetensors")
    del tensors["classifier.dense.bias"]
    save_file(tensors, parts[2] / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"missing: classifier\.dense\.bias"):
        average(find_models(list(map(str, parts))), tmp_path / "out")
