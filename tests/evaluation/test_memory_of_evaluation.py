"""What an evaluation holds in memory grows neither with the vocabulary nor, but for a few numbers, with the set."""

import json
import random
import tracemalloc
from pathlib import Path

import pytest

from xlmrxl_train import load_config
from xlmrxl_train.evaluation.evaluator import GATHERED_EXAMPLES, LanguageScore
from xlmrxl_train.plan.live import LiveTensors
from xlmrxl_train.session import SAMPLE_TOKENIZER, Session

WORDS = [
    "recipe=mlm", "model=tiny", "model.hidden_size=8", "model.intermediate_size=8", "model.num_hidden_layers=1",
    "task.join=none", "dataset.languages=[en]", "dataset.files.validation=[{path: en.txt}]", "strategy.device=cpu",
    f"tokenizer.path={SAMPLE_TOKENIZER}", "evaluate.bootstrap=100", "train.precision=fp32",
]  # fmt: skip


def session_on(folder: Path, num_lines: int, *words: str) -> Session:
    folder.mkdir()
    letters = random.Random(0)
    lines = (" ".join(letters.choices("abcdefgh", k=letters.randint(1, 6))) for _ in range(num_lines))
    (folder / "en.txt").write_text("\n".join(lines), encoding="utf-8")
    return Session.open(load_config([*WORDS, f"data.root={folder}", *words]))


def evaluated(session: Session, folder: Path) -> LanguageScore:
    corpus = session.corpus("validation", ["en"])
    evaluator = session.evaluator(session.strategy())
    return evaluator.evaluate(corpus, intervals=True, folder=folder / "predictions")["en"]


@pytest.mark.parametrize("task", ["masked_language_modelling", "causal_language_modelling"])
def test_no_tensor_grows_with_vocabulary_and_targets(task: str, tmp_path: Path) -> None:
    """400 lines in one batch: with the real vocabulary the logits of all targets would be larger than the weights."""
    words = [f"task={task}", "model.vocab_size=250880", *(["task.mask_probability=0.9"] * ("masked" in task))]
    session = session_on(tmp_path / "text", 400, *words)
    with LiveTensors() as tensors:
        score = evaluated(session, tmp_path)
    lines = (tmp_path / "predictions/en.jsonl").read_text(encoding="utf-8").splitlines()
    targets = sum(json.loads(line)["tokens"] for line in lines)
    assert score.n == len(lines) == 400 and targets > 1000
    assert set(score.values) == {"loss", "perplexity"} and 12.3 < score.values["loss"] < 12.6  # ln(250,880) = 12.43
    assert tensors.largest <= 2**26 < targets * 250_880 / 3


@pytest.mark.slow
def test_a_few_numbers_stay_of_an_example(tmp_path: Path) -> None:
    peaks = {}
    for number in (10_000, 30_000):
        session = session_on(tmp_path / str(number), number)
        corpus = session.corpus("validation", ["en"])
        evaluator = session.evaluator(session.strategy())
        tracemalloc.start()
        score = evaluator.evaluate(corpus, intervals=True, folder=tmp_path / f"{number}-predictions")["en"]
        peaks[number] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert score.n == number > GATHERED_EXAMPLES
    per_example = (peaks[30_000] - peaks[10_000]) / 20_000
    assert per_example < 250, peaks  # plan, statistics of two metrics, place in the file, one resample
