"""Runs of language modelling on a user's own text, and a task that begins from what they learnt."""

import json
import math
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from xlmrxl_train import load_config, train
from xlmrxl_train.errors import DataError
from xlmrxl_train.model import XLMRobertaXLForCausalLM
from xlmrxl_train.run import evaluate
from xlmrxl_train.session import SAMPLE_TOKENIZER, Session, build_model

QUICK = ["model=tiny", f"tokenizer.path={SAMPLE_TOKENIZER}", "task.max_length=32", "train.max_steps=3",
         "train.batch_size=8", "train.precision=fp32", "evaluate.bootstrap=10"]  # fmt: skip


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sw.txt, 200 lines, and their translations."""
    folder, letters = tmp_path_factory.mktemp("texts"), random.Random(0)
    lines = [" ".join(letters.choices("abcdefgh", k=letters.randint(1, 40))) for _ in range(200)]
    (folder / "sw.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "sw.en.txt").write_text("\n".join(line[::-1] for line in lines) + "\n", encoding="utf-8")
    return folder


def losses(folder: Path) -> dict[str, float]:
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    *earlier, score = [event for event in events if event["event"] == "evaluate"]
    assert earlier == [score]  # the look after the last step, and the same split for the report
    assert score["perplexity"] == pytest.approx(math.exp(score["loss"]))
    return score


@pytest.fixture(scope="module")
def adapted(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the command that the recipe's card shows, cut short."""
    folder = tmp_path_factory.mktemp("runs") / "mlm"
    words = ["recipe=mlm", f"data.root={texts}", "dataset.languages=[sw]", f"run.dir={folder}", *QUICK]
    command = [sys.executable, "-m", "xlmrxl_train", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_one_command_continues_on_a_users_text(adapted: Path) -> None:
    score = losses(adapted)
    assert (score["split"], score["language"]) == ("validation", "sw") and 5 < score["loss"] < 9  # ln(1,025) = 6.9
    assert "Trained on sw (files), 3 steps" in (adapted / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("recipe", ["tlm", "clm"])
def test_the_other_recipes_do_too(recipe: str, texts: Path, tmp_path: Path) -> None:
    words = [f"recipe={recipe}", f"data.root={texts}", "dataset.languages=[sw]", f"run.dir={tmp_path / 'run'}", *QUICK]
    report = train(load_config(words))
    assert report is not None and report.metrics == ["loss", "perplexity"]
    assert losses(tmp_path / "run")["n"] == report.languages["sw"].n > 1
    assert report.languages["sw"].values["loss"] == losses(tmp_path / "run")["loss"]


def test_a_causal_model_is_causal_when_it_is_read_again(texts: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["recipe=clm", f"data.root={texts}", "dataset.languages=[sw]", f"run.dir={run}", *QUICK]
    report = train(load_config(words))
    config = json.loads((run / "model" / "config.json").read_text(encoding="utf-8"))
    assert config["is_decoder"] and config["architectures"] == ["XLMRobertaXLForCausalLM"]
    model = XLMRobertaXLForCausalLM.from_pretrained(run / "model")
    ids = torch.tensor([[0, 40, 41, 42, 2]])
    with torch.no_grad():
        logits = [
            model(input_ids=part, attention_mask=torch.ones_like(part)).logits[0, 1] for part in (ids, ids[:, :2])
        ]
    torch.testing.assert_close(*logits)
    again = evaluate(run, load_config([*words, "dataset.files.test=[{path: sw.txt, part: [0.98, 1.0]}]"]))
    assert again.languages["sw"].values == report.languages["sw"].values


HEAD = {f"classifier.{part}.{kind}" for part in ("dense", "out_proj") for kind in ("weight", "bias")}


def test_a_task_begins_from_an_adapted_model(adapted: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["recipe=demo", f"model.path={adapted}", "data.limit=12", "train.max_steps=1", "evaluate.languages=[en]"]
    config = load_config([*words, "evaluate.every=0", "evaluate.bootstrap=0", f"run.dir={tmp_path / 'run'}"])
    session = Session.open(config)
    _, source = build_model(config, session.task, session.tokenizer)
    assert source.report is not None
    assert set(source.report.new) == HEAD and {name.split(".")[0] for name in source.report.unused} == {"lm_head"}
    assert train(config) is not None
    assert f"head    classifier newly initialised: {adapted} holds none" in capfd.readouterr().err


@pytest.mark.parametrize("task", ["sequence_classification", "masked_language_modelling"])
def test_a_task_that_reads_both_ways_is_not_causal(task: str, texts: Path, tmp_path: Path) -> None:
    """Under causal attention <s>, which a classifier looks at, would see nothing."""
    run = tmp_path / "run"
    train(load_config(["recipe=clm", f"data.root={texts}", "dataset.languages=[sw]", f"run.dir={run}", *QUICK]))
    recipe = {"sequence_classification": "demo", "masked_language_modelling": "demo_pretrain"}[task]
    config = load_config([f"recipe={recipe}", f"model.path={run}"])
    session = Session.open(config)
    model, source = build_model(config, session.task, session.tokenizer)
    assert not model.config.is_decoder
    assert source.report is not None and set(source.report.new) == (HEAD if recipe == "demo" else set())


def test_a_text_that_is_not_there_is_named(texts: Path) -> None:
    words = ["recipe=mlm", f"data.root={texts}", "dataset.languages=[fi]", *QUICK]
    with pytest.raises(DataError) as caught:
        train(load_config(words))
    assert str(caught.value).startswith(f"{texts}/fi.txt: expected a file, found none in {texts}.")
