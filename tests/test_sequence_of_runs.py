"""One run after another: which weights are kept, which are new, and what is still known of the earlier runs."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from xlmrxl_train import evaluate, load_config, train
from xlmrxl_train.cli import main
from xlmrxl_train.cli.compose import load_run_config
from xlmrxl_train.errors import RunError
from xlmrxl_train.evaluation.report import Report
from xlmrxl_train.lineage import parents_of

SHORT = ["data.limit=40", "evaluate.bootstrap=0", "evaluate.every=0", "model.initializer_range=0.07"]
NLI = ["recipe=demo", *SHORT, "evaluate.languages=[en,sw]", "train.batch_size=8", "train.log_every=1"]
# The sample's pairs with other labels: whether the hypothesis follows, under the same number of names and fewer.
OTHER = {
    "name": "verdicts",
    "kind": "sequence_classification",
    "languages": ["en", "sw"],
    "columns": {"text": "premise", "text_pair": "hypothesis", "label": "label"},
    "labels": ["yes", "maybe", "no"],
    "label_values": {"entailment": "yes", "neutral": "maybe", "contradiction": "no"},
    "sample": {
        split: [{"path": f"nli/{split}-{{language}}.tsv.gz", "stand_in": "verdicts on the sample"}]
        for split in ("train", "validation", "test")
    },
}
Runs = dict[str, Path]


@pytest.fixture(scope="module")
def conf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of choices with the data set `verdicts`."""
    folder = tmp_path_factory.mktemp("conf")
    (folder / "dataset").mkdir()
    (folder / "dataset/verdicts.yaml").write_text(yaml.safe_dump(OTHER), encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLMRXL_CACHE", str(tmp_path_factory.getbasetemp() / "sequence_cache"))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of masked language modelling."""
    folder = tmp_path_factory.mktemp("text") / "run"
    words = ["recipe=demo_pretrain", *SHORT, "train.max_steps=3", "train.languages=[sw,de]"]
    assert train(load_config([*words, f"run.dir={folder}"])) is not None
    return folder


@pytest.fixture(scope="module")
def nli(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of classification that began from it."""
    folder = tmp_path_factory.mktemp("nli") / "run"
    assert run(folder, text, "train.epochs=15") is not None
    return folder


def run(folder: Path, before: Path | None, *words: str, conf: Path | None = None) -> Report | None:
    path = [f"model.path={before}"] if before else []
    return train(load_config([*NLI, *path, f"run.dir={folder}", *words], config_dir=conf))


def losses(folder: Path) -> list[float]:
    events = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [event["loss"] for event in events if event["event"] == "train"]


def head(folder: Path) -> torch.Tensor:
    return load_file(folder / "model/model.safetensors")["classifier.out_proj.weight"]


def test_text_then_a_task(text: Path, nli: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    report = run(tmp_path / "run", text, "train.max_steps=1", "optimizer.lr=1e-9")
    assert report is not None
    said = capfd.readouterr().err
    assert f"head    classifier newly initialised: {text} holds none" in said
    assert (
        report.protocol.setting(["en", "sw"]) == "zero-shot from en; sequential: from demo_pretrain (sample parallel)"
    )
    (before,) = report.protocol.parents
    assert (before["run"], before["train_languages"], before["labelled"]) == (str(text), ["sw", "de"], False)
    weights = [load_file(folder / "model/model.safetensors") for folder in (text, tmp_path / "run")]
    name = "roberta.encoder.layer.0.output.dense.weight"
    assert torch.allclose(weights[0][name], weights[1][name], atol=1e-6)
    page = (nli / "report.md").read_text(encoding="utf-8")
    assert f"Began from {text}: demo_pretrain, masked_language_modelling on sample parallel in sw, de." in page


def test_the_same_kind_and_labels_keep_the_head(nli: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    report = run(tmp_path / "run", nli, "train.max_steps=1", "optimizer.lr=1e-9", "train.batch_size=40")
    assert report is not None
    assert f"head    classifier as in {nli}" in capfd.readouterr().err
    assert torch.allclose(head(tmp_path / "run"), head(nli), atol=1e-6)
    # It goes on where the run before ended: on the same pairs, far below what a new head has, ln 3 = 1.1.
    assert losses(tmp_path / "run")[0] < 0.7 * losses(nli)[0]
    assert report.protocol.setting(["sw"]) == (
        "zero-shot from en; sequential: from demo_pretrain (sample parallel), then demo (sample NLI)"
    )


def test_other_labels_get_a_new_head_though_its_shape_is_the_same(
    nli: Path, conf: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["dataset=verdicts", "train.max_steps=1", "optimizer.lr=1e-9"]
    report = run(tmp_path / "run", nli, *words, conf=conf)
    assert report is not None
    assert (
        f"head    classifier newly initialised: the head in {nli}/model has the labels entailment, neutral, "
        "contradiction, not yes, maybe, no"
    ) in capfd.readouterr().err
    assert head(tmp_path / "run").shape == head(nli).shape
    assert not torch.allclose(head(tmp_path / "run"), head(nli), atol=1e-2)
    # Fewer labels, whose head has another shape, and the stand-ins of the runs before.
    report = run(tmp_path / "two", tmp_path / "run", "dataset=paws_x", "data.source=sample", "train.max_steps=1",
                 "dataset.sample={train: [{path: nli/train-en.tsv.gz}], test: [{path: nli/test-en.tsv.gz}]}",
                 "dataset.columns.text=premise", "dataset.columns.text_pair=hypothesis", "evaluate.languages=[en]",
                 "dataset.label_values={entailment: paraphrase, neutral: different, contradiction: different}",
                 conf=conf)  # fmt: skip
    assert report is not None
    assert "has the labels yes, maybe, no, not different, paraphrase" in capfd.readouterr().err
    assert report.protocol.stand_ins == ["verdicts on the sample"]
    assert [parent["recipe"] for parent in report.protocol.parents] == ["demo_pretrain", "demo", "demo"]


def test_labels_of_a_target_language_in_an_earlier_run_are_remembered(nli: Path, tmp_path: Path) -> None:
    adapted = run(tmp_path / "sw", nli, "train.languages=[sw]", "train.max_steps=1")
    assert adapted is not None and adapted.protocol.setting(["en"]).startswith("cross-lingual, begun from a run with")
    report = run(tmp_path / "en", tmp_path / "sw/model", "train.max_steps=1")
    assert report is not None
    setting = report.protocol.setting(["en", "sw"])
    assert "zero-shot" not in setting and setting.startswith("cross-lingual, begun from a run with labels of sw; ")
    assert run(tmp_path / "en", tmp_path / "sw/model", "train.max_steps=1") is None  # finished, and recognised


def test_a_model_is_not_scored_on_labels_that_it_was_not_trained_for(
    nli: Path, conf: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(nli), "--config-dir", str(conf), "dataset=verdicts"]) == 2
    assert capfd.readouterr().err == (
        f"error: dataset=verdicts must suit the trained model, but the head in {nli}/model has the labels entailment, "
        "neutral, contradiction, not yes, maybe, no. Evaluate on a data set with the same labels, or train on this "
        "one with model.path=<run folder>.\n"
    )
    report = evaluate(nli, load_run_config(nli, ["dataset=xnli", "evaluate.languages=[sw]", "data.source=sample"]))
    assert report.protocol.setting(["sw"]) == (
        "zero-shot from en; trained on sample NLI; sequential: from demo_pretrain (sample parallel)"
    )
    assert report.protocol.stand_ins == ["sentences made for the demo, not XNLI"]


def test_a_data_set_chosen_for_an_evaluation_need_not_have_what_was_trained_on(nli: Path, conf: Path) -> None:
    config = load_run_config(nli, ["dataset=verdicts", "dataset.languages=[sw]", "evaluate.languages=[]"],
                             config_dir=conf)  # fmt: skip
    assert (config.train.languages, config.evaluate.select_languages, config.mixture) == (["all"], [], {})


def test_a_run_that_does_not_say_what_it_was_trained_on_is_refused(nli: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(nli, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints")))
    (folder / "report.json").write_text('{"protocol": {"speed": 1}}', encoding="utf-8")
    with pytest.raises(RunError) as caught:
        parents_of(str(folder))
    assert str(caught.value).startswith(
        f"{folder}/report.json must say what the model there was trained on, but cannot be read: "
    )
    assert str(caught.value).endswith("Restore it from a copy, or train the run again.")
    (folder / "report.json").unlink()
    for ask in (lambda: run(tmp_path / "next", folder), lambda: evaluate(folder)):
        with pytest.raises(RunError) as caught:
            ask()
        assert str(caught.value) == (
            f"{folder}/report.json must say what the model there was trained on, found none. "
            "Let the run finish: start its command again."
        )
    assert not (tmp_path / "next").exists()


def test_a_folder_of_weights_is_no_run(nli: Path, tmp_path: Path) -> None:
    shutil.copytree(nli / "model", tmp_path / "weights")
    assert parents_of(str(tmp_path / "weights")) == parents_of(None) == parents_of("facebook/xlm-roberta-xl") == []
    assert [parent["run"] for parent in parents_of(str(nli / "model"))][-1] == str(nli)


def test_a_head_of_another_kind_is_not_taken(nli: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A tagger's head has the name, and may have the shape, of a scorer of choices."""
    shutil.copytree(nli / "model", tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text(encoding="utf-8"))
    config["architectures"] = ["XLMRobertaXLForTokenClassification"]
    (tmp_path / "model/config.json").write_text(json.dumps(config), encoding="utf-8")
    assert run(tmp_path / "run", tmp_path / "model", "train.max_steps=1") is not None
    assert (
        f"head    classifier newly initialised: the head in {tmp_path}/model is of XLMRobertaXLForTokenClassification"
    ) in capfd.readouterr().err
