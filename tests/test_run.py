"""The main job from end to end on the packaged sample: train, resume, evaluate, export, one's own data set."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from xlmrxl_train import evaluate, load_config, train
from xlmrxl_train.errors import ConfigError, DataError, RunError
from xlmrxl_train.stop import StopRequest
from xlmrxl_train.training.speed import MEASURED

# Two languages, 60 examples, 16 steps of a tiny model: seconds.
QUICK = [
    "recipe=demo",
    "model.path=null",
    "data.limit=60",
    "evaluate.languages=[en,de]",
    "evaluate.bootstrap=20",
    "evaluate.every=7",
    "evaluate.select=best",
    "model.hidden_dropout_prob=0.1",
    "model.attention_probs_dropout_prob=0.1",
    "train.epochs=8",
    "train.log_every=4",
    "train.checkpoint_every=5",
    "train.batch_size=32",
]


def quick(folder: Path, *overrides: str):
    return load_config([*QUICK, f"run.dir={folder}", *overrides])


def events(folder: Path) -> list[dict]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in MEASURED} for line in lines]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run that was never interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    assert train(quick(folder, f"data.cache={tmp_path_factory.getbasetemp() / 'cache'}")) is not None
    return folder


def test_a_run_leaves_everything_that_it_promises(finished) -> None:
    files = {"config.yaml", "environment.json", "metrics.jsonl", "report.json", "report.md"}
    names = files | {"checkpoints", "model", "predictions"}
    assert {path.name for path in finished.iterdir()} == names
    train_event = next(event for event in events(finished) if event["event"] == "train")
    counters = {"tokens", "skipped", "unchanged"}
    assert set(train_event) == {"event", "step", "total_steps", "epoch", "loss", "lr", "grad_norm", *counters}
    score = next(event for event in events(finished) if event["event"] == "evaluate")
    assert set(score) == {"event", "step", "split", "language", "accuracy", "macro_f1", "n"}
    report = json.loads((finished / "report.json").read_text(encoding="utf-8"))
    assert list(report["languages"]) == ["en", "de"]
    assert report["languages"]["de"]["n"] == 60
    assert len(report["languages"]["de"]["interval"]["accuracy"]) == 2
    environment = json.loads((finished / "environment.json").read_text(encoding="utf-8"))
    assert environment["packages"]["torch"] == torch.__version__
    assert set(environment["data"]) == {"train", "validation", "test"}


def test_the_test_split_is_looked_at_once_and_at_the_end(finished) -> None:
    scored = [event for event in events(finished) if event["event"] == "evaluate"]
    test = [index for index, event in enumerate(scored) if event["split"] == "test"]
    assert test == [len(scored) - 2, len(scored) - 1]


def test_checkpoints_are_the_latest_and_the_best(finished) -> None:
    steps = sorted(path.name for path in (finished / "checkpoints").iterdir())
    state = json.loads((finished / "checkpoints" / steps[-1] / "state.json").read_text(encoding="utf-8"))
    assert steps == sorted({f"step-{state['best_step']:08d}", "step-00000016"})


@pytest.mark.parametrize("stop_after", [1, 7, 11, 16])
def test_resumed_is_uninterrupted(finished, tmp_path, stop_after, monkeypatch) -> None:
    """Stop after a step (7: while validating is due; 16: before the test), go on: the same lines, the same report."""
    calls = 0

    def ask(self: StopRequest) -> bool:
        nonlocal calls
        calls += 1
        if calls == stop_after:
            self.reason = "the test"
        return self.reason is not None

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "__call__", ask)
        assert train(quick(folder)) is None
    assert json.loads((folder / "stopped.json").read_text(encoding="utf-8"))["reason"] == "the test"
    assert not (folder / "report.json").exists()
    assert train(quick(folder)) is not None
    assert not (folder / "stopped.json").exists()
    assert events(folder) == events(finished)
    assert (folder / "report.json").read_text() == (finished / "report.json").read_text()
    assert (folder / "model/model.safetensors").read_bytes() == (finished / "model/model.safetensors").read_bytes()


def test_a_finished_run_says_so_and_changes_nothing(finished, capfd) -> None:
    before = (finished / "report.json").stat().st_mtime_ns
    assert train(quick(finished)) is None
    assert "is finished; for another run choose run.name, seed or run.dir" in capfd.readouterr().err
    assert (finished / "report.json").stat().st_mtime_ns == before


def test_a_changed_configuration_is_refused_with_the_differences(finished) -> None:
    with pytest.raises(RunError) as caught:
        train(quick(finished, "seed=2", "optimizer.lr=0.1", "train.checkpoint_every=3"))
    message = str(caught.value)
    assert "holds a run of another configuration" in message
    assert "optimizer.lr: 0.001 there, 0.1 now" in message
    assert "seed: 1 there, 2 now" in message
    assert "checkpoint_every" not in message  # changes nothing that is computed


def test_resume_never_refuses_a_folder_with_a_run(finished) -> None:
    with pytest.raises(RunError, match=r"run.resume=never, but run.dir=.* holds a run already"):
        train(quick(finished, "run.resume=never"))


def test_a_folder_in_use_is_refused(tmp_path) -> None:
    from xlmrxl_train.training.folder import RunFolder

    folder = RunFolder(tmp_path / "run")
    folder.acquire()
    with pytest.raises(RunError, match=r"is in use by process \d+ on .*Wait for it, or choose another run.name"):
        train(quick(tmp_path / "run"))
    folder.release()


def test_evaluate_scores_the_exported_model_as_the_run_did(finished) -> None:
    report = evaluate(finished)
    then = json.loads((finished / "report.json").read_text(encoding="utf-8"))
    assert report.to_dict()["languages"] == then["languages"]
    assert report.to_dict()["setting"] == "zero-shot from en"
    written = finished / "evaluation" / "sample_nli" / "report.json"
    assert json.loads(written.read_text(encoding="utf-8"))["protocol"]["steps"] == 16


def test_transformers_loads_the_exported_model_and_agrees(finished) -> None:
    transformers = pytest.importorskip("transformers")
    from xlmrxl_train import Tokenizer
    from xlmrxl_train.model import XLMRobertaXLForSequenceClassification

    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(finished / "model").eval()
    ours = XLMRobertaXLForSequenceClassification.from_pretrained(finished / "model")
    inputs = Tokenizer.from_path(finished / "model")(
        ["The farmer reads a book.", "The girl sleeps."], ["It happens.", "No."], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        expected = theirs(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask).logits
        got = ours(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask).logits
    assert (expected - got).abs().max() < 1e-5
    assert theirs.config.id2label == {0: "entailment", 1: "neutral", 2: "contradiction"}


def test_evaluate_refuses_a_folder_without_a_run(tmp_path) -> None:
    with pytest.raises(RunError, match=r"must be a run folder with config\.yaml, found none"):
        evaluate(tmp_path)


# A user's own data set: JSON lines with other columns, other labels, all languages in one file; one YAML, no Python.
REVIEWS = """
name: reviews
kind: sequence_classification
languages: [en, de]
language_column: lang
columns: {text: premise_text, text_pair: claim, label: verdict}
labels: [entailment, neutral, contradiction]
label_values: {"yes": entailment, maybe: neutral, "no": contradiction}
skip_labels: [unclear]
files:
  train: [{path: train.jsonl}]
  validation: [{path: test.jsonl}]
  test: [{path: test.jsonl}]
"""


def write_reviews(folder: Path, extra: str = "") -> list[str]:
    (folder / "conf" / "dataset").mkdir(parents=True)
    (folder / "conf" / "dataset" / "reviews.yaml").write_text(REVIEWS, encoding="utf-8")
    rows = [
        {"lang": lang, "premise_text": f"premise {i} {lang}", "claim": f"claim {i}", "verdict": verdict}
        for i in range(8)
        for lang in ("en", "de")
        for verdict in ("yes", "maybe", "no", "unclear")
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "train.jsonl").write_text(text + extra, encoding="utf-8")
    (folder / "test.jsonl").write_text(text, encoding="utf-8")
    tokenizer = Path(__file__).parents[1] / "xlmrxl_train" / "data" / "sample"
    return [
        "recipe=xnli",
        "model=tiny",
        "dataset=reviews",
        f"data.root={folder}",
        f"tokenizer.path={tokenizer}",
        f"run.dir={folder / 'run'}",
        "train.max_steps=2",
        "train.batch_size=8",
        "evaluate.bootstrap=10",
    ]


def test_a_new_data_set_is_one_yaml(tmp_path) -> None:
    words = write_reviews(tmp_path)
    command = [sys.executable, "-m", "xlmrxl_train", "--config-dir", str(tmp_path / "conf"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    assert {code: score["n"] for code, score in report["languages"].items()} == {"en": 24, "de": 24}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            {"lang": "en", "premise_text": "a", "claim": "b", "verdict": "perhaps"},
            "label must be one of entailment, neutral, contradiction, yes, maybe, no or a number below 3, got",
        ),
        (
            {"lang": "en", "premise_text": 7, "claim": "b", "verdict": "yes"},
            "column 'premise_text' must hold text, got 7",
        ),
    ],
)
def test_a_bad_row_stops_before_training_with_file_and_line(tmp_path, row, expected) -> None:
    words = write_reviews(tmp_path, json.dumps(row) + "\n")
    with pytest.raises(DataError) as caught:
        train(load_config(words, config_dir=tmp_path / "conf"))
    assert str(caught.value).startswith(f"{tmp_path / 'train.jsonl'}:65: ")
    assert expected in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_with_more_tokens_than_the_model_has_rows_is_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer.path has [\d,]+ tokens, more than the model's 100 rows"):
        train(quick(tmp_path / "run", "model.vocab_size=100"))


def test_a_model_without_a_tokenizer_asks_for_one(tmp_path) -> None:
    words = [word for word in write_reviews(tmp_path) if not word.startswith("tokenizer")]
    with pytest.raises(ConfigError, match=r"tokenizer\.path must be set where model\.path is null"):
        train(load_config(words, config_dir=tmp_path / "conf"))
