"""A small model learns 200 questions of TyDiQA by heart: the loss falls, and exact match on them rises."""

import json
from pathlib import Path

import pytest

from xlmrxl_train import load_config, train


@pytest.mark.slow
def test_two_hundred_questions_are_learnt_by_heart(shared_data: Path, tmp_path: Path) -> None:
    same = "[{path: qa/tydiqa_goldp/train/english_tydiqa_train.json.gz}]"
    words = [
        "recipe=tydiqa", "model=tiny", f"data.root={shared_data}", f"run.dir={tmp_path / 'run'}",
        f"tokenizer.path={shared_data / 'tokenizer' / 'xlmr' / 'tokenizer.json.gz'}", "dataset.languages=[en]",
        "dataset.hub=null", f"dataset.files.validation={same}", f"dataset.files.test={same}", "data.limit=200",
        "train.epochs=12", "train.batch_size=20", "optimizer.lr=3e-3", "model.hidden_dropout_prob=0.0",
        "model.attention_probs_dropout_prob=0.0", "model.initializer_range=0.07", "evaluate.every=40",
        "evaluate.bootstrap=0", "train.precision=fp32",
    ]  # fmt: skip
    report = train(load_config(words))
    assert report is not None
    lines = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    losses = [event["loss"] for event in events if event["event"] == "train"]
    looks = [
        event["squad_exact_match"]
        for event in events
        if event["event"] == "evaluate" and event["split"] == "validation"
    ]
    assert losses[-1] < losses[0] / 10  # from 4.9 to 0.02 when this was written
    assert looks[0] + 0.2 < looks[-1] and looks[-1] > 0.85  # from 57 % after 4 epochs to 96.5 % after 12
    predictions = (tmp_path / "run" / "predictions" / "en.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(predictions) == 200
    assert sum(json.loads(line)["prediction"] in json.loads(line)["reference"] for line in predictions) > 170
