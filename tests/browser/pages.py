"""Run folders for the page: sentences of the sample in 15 scripts and languages, and strings that mean harm."""

import csv
import gzip
import json
from importlib import resources
from pathlib import Path

from tests.evaluation.comparison.folders import write_run

LANGUAGES = "en fr es de el bg ru tr ar vi th zh hi sw ur".split()
CLASSES = ["entailment", "neutral", "contradiction"]
HARM = [
    "</script><script>document.title = 'taken'</script>",
    "<img src=x onerror=\"document.title = 'taken'\">",
    "<!-- <b>bold</b> & \" ' ` {{ 7 * 7 }}",
    "turned \u202etxet\u202c and \u2066isolated",
    "nothing\x00 \x1b[31mred \ufffe \u2028 new line",
]


def write_runs(folder: Path, *, seeds: int = 1, shift: int = 0, lr: str = "1e-3") -> list[Path]:
    """Write runs with predictions, texts, curves and scores by step, as training leaves them."""
    texts = {code: _texts(code) for code in LANGUAGES}
    runs = []
    for seed in range(1, seeds + 1):
        guesses = {
            code: _guesses(len(texts[code]), right=len(LANGUAGES) - number + shift + seed)
            for number, code in enumerate(LANGUAGES)
        }
        run = write_run(
            folder / f"seed-{seed}",
            guesses,
            seed=seed,
            overrides=["recipe=demo", f"optimizer.lr={lr}"],
            kind="sequence_classification",
        )
        for code in LANGUAGES:
            _add_texts(run / "predictions" / f"{code}.jsonl", texts[code])
        _write_history(run, seed)
        runs.append(run)
    return runs


def _texts(code: str) -> list[list[str]]:
    file = resources.files("xlmrxl_train.data").joinpath(f"sample/nli/test-{code}.tsv.gz")
    rows = gzip.decompress(file.read_bytes()).decode().splitlines()[:31]
    read = csv.DictReader(rows, delimiter="\t", quoting=csv.QUOTE_NONE)
    texts = [[row["premise"], row["hypothesis"]] for row in read]
    return [[text, "harm"] for text in HARM] + texts[len(HARM) :] if code == "en" else texts


def _guesses(n: int, *, right: int) -> tuple[list[str], list[str]]:
    truth = [CLASSES[number % 3] for number in range(n)]
    guess = [name if number >= n - right else CLASSES[(number + 1) % 3] for number, name in enumerate(truth)]
    return guess, truth


def _add_texts(path: Path, texts: list[list[str]]) -> None:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for number, (line, pair) in enumerate(zip(lines, texts, strict=True)):
        line |= {"texts": pair, "confidence": 0.99 - number / 100}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _write_history(run: Path, seed: int) -> None:
    lines = []
    for step in range(10, 310, 10):
        values = {
            "loss": 1.1 - step / 400 + seed / 50,
            "lr": 1e-3 * (1 - step / 310),
            "grad_norm": 1.5,
            "memory_gb": 2.5,
        }
        lines.append({"event": "train", "step": step, "tokens": 600 * step, "tokens_per_second": 3e4, **values})
        if step % 100 == 0:
            for number, code in enumerate(LANGUAGES):
                score = 0.5 + step / 1000 - number / 100
                lines.append(
                    {
                        "event": "evaluate",
                        "step": step,
                        "split": "validation",
                        "language": code,
                        "accuracy": score,
                        "n": 30,
                    }
                )
            means = {"mean": 0.4 + step / 1000, "mean_without_training_languages": 0.35, "transfer_gap": 0.1}
            lines.append({"event": "averages", "step": step, "split": "validation", "accuracy": means})
    lines.append({"event": "guard", "step": 120, "fault": "spike", "text": "a loss <b>of</b> 3 over the last 4 steps"})
    lines.append({"event": "note", "step": 130, "what": "an event <b>of</b> another version"})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    environment = {
        "python": "3.11", "packages": {"torch": "2.13"}, "cpu": {"model": "CPU", "cores": 2}, "memory_gb": 8.0,
        "gpus": ["NVIDIA H100 80GB HBM3"] * 2, "world_size": 2, "device": "cuda", "tokenizer": "ab" * 32,
        "data": {"test": "cd" * 32}, "started": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    (run / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
