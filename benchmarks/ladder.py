"""From the Trainer's default to ours and beyond, one step at a time: speed, memory, and the score for the same tokens.

    python -m benchmarks.ladder --data ../shared/data --svg docs/ladder.svg

Every rung is a whole training run in a process of its own, by the public commands of either side; the rungs take turns,
`--rounds` times, and medians are shown. Speed and memory: 8 layers x 512 with XLM-R's 250,002 rows on pairs of XNLI's
stand-in, batch 32, bf16. Score: the second stage of `make demo` (a model that learns in seconds), the same examples and
number of steps for all, three seeds; accuracy in English, and the mean of the 14 languages that were never trained.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import Trainer, TrainerCallback

from benchmarks.evaluation import Peer, one_language
from benchmarks.measure import MatrixPeak, clock, describe, machine, peak_memory_gb, table, write_json
from benchmarks.peer import PaddedRows, arguments
from benchmarks.ranks import ROOT
from benchmarks.workload import REAL_VOCABULARY, SHAPES, Examples, our_model
from xlmrxl_train import Tokenizer, load_config, train
from xlmrxl_train.config import Config
from xlmrxl_train.data.corpus import Corpus
from xlmrxl_train.session import SAMPLE_TOKENIZER, Session

SHAPE = SHAPES["8x512"]
BATCH = 32
WARM_UP = 5  # steps that are not counted
DEMO = ["recipe=demo", "evaluate.every=0", "evaluate.predictions=false", "train.save_model=false"]


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One way to train."""

    name: str
    words: tuple[str, ...] = ()  # overrides of ours, on top of the rungs' common ones
    peer: tuple[str, str, int | None] | None = None  # the peer's sampling, attention, and length to pad to
    full: bool = True  # whether all weights of the layers learn, so that FLOPs can be counted


WHOLE = "model.embeddings=trainable"
RUNGS = (
    Rung(name="Trainer, padded to 128 (run_xnli's default)", peer=("random", "sdpa", 128)),
    Rung(name="Trainer, dynamic padding", peer=("random", "sdpa", None)),
    Rung(name="Trainer, group_by_length, eager (its best)", peer=("group_by_length", "eager", None)),
    Rung(name="ours: packed, one block of attention", words=(WHOLE, "model.attn_implementation=sdpa")),
    Rung(name="+ attention in groups", words=(WHOLE,)),
    Rung(name="+ active vocabulary: our default"),
    Rung(name="default + train.compile", words=("train.compile=true",)),
    Rung(name="default + train.recompute=full", words=("train.recompute=full",)),
    Rung(name="default + optimizer=adamw_8bit", words=("optimizer=adamw_8bit",)),
    Rung(name="default + tuning=lora", words=("tuning=lora", "optimizer.lr=1e-3"), full=False),
    Rung(
        name="default + tuning=lora, nf4",
        words=("tuning=lora", "tuning.weights=nf4", "optimizer.lr=1e-3", "train.precision=bf16"),
        full=False,
    ),
)


class Times(TrainerCallback):
    """When each of the peer's steps ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.perf_counter())


def corpus_of(config: Config) -> tuple[Session, Corpus]:
    """Open the training split that a run of ours would train on."""
    session = Session.open(config)
    return session, session.corpus("train", session.train_languages)


def peer_trainer(rung: Rung, model: Any, examples: Examples, **settings: Any) -> tuple[Trainer, Times, list[int]]:
    """Return the peer with everything set, what notes its steps, and the tokens of each of its batches."""
    assert rung.peer is not None
    sampling, attention, width = rung.peer
    model.set_attn_implementation(attention)
    rows, tokens, times = PaddedRows(examples), [], Times()

    def collate(batch: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        tokens.append(sum(len(row["input_ids"]) for row in batch))
        return rows.collate(batch, width)

    options = arguments(
        BATCH, cuda=torch.cuda.is_available(), remove_unused_columns=False, train_sampling_strategy=sampling, **settings
    )
    trainer = Trainer(
        model=model, args=options, data_collator=collate, train_dataset=rows, callbacks=[times],
    )  # fmt: skip
    return trainer, times, tokens


def write_base(folder: Path, data: Path | None) -> None:
    """Write the model that all timed runs begin from: random weights, and the tokenizer of the data."""
    torch.manual_seed(0)
    our_model(SHAPE, REAL_VOCABULARY, 0.1).save_pretrained(folder)
    tokenizer = data / "tokenizer" / "xlmr" / "tokenizer.json.gz" if data else SAMPLE_TOKENIZER
    Tokenizer.from_path(tokenizer).save(folder)


def speed_words(base: Path, data: Path | None, folder: Path, steps: int) -> list[str]:
    """Return the overrides of the run that is timed."""
    return [
        "recipe=xnli", f"model.path={base}", f"data.root={data}" if data else "data.source=sample", f"run.dir={folder}",
        f"train.batch_size={BATCH}", f"train.max_steps={steps}", "train.log_every=1", "train.precision=bf16",
        "evaluate.every=0", "evaluate.test=false", "train.save_model=false",
    ]  # fmt: skip


def time_rung(rung: Rung, base: Path, data: Path | None, folder: Path, steps: int) -> dict[str, float]:
    """Train some steps; return real tokens per second and this process's peak memory."""
    words = speed_words(base, data, folder, steps)
    if rung.peer is None:
        train(load_config([*words, *rung.words]))
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        speeds = [line["tokens_per_second"] for line in lines if line["event"] == "train"]
    else:
        session, corpus = corpus_of(load_config(words))
        _, examples = one_language(corpus, 0)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(base)
        trainer, times, tokens = peer_trainer(rung, model, examples, max_steps=steps)
        session.world.close()
        trainer.train()
        seconds = [after - before for before, after in zip(times.ends, times.ends[1:], strict=False)]
        speeds = [count / second for count, second in zip(tokens[1:], seconds, strict=False)]
    return {"tokens_per_second": statistics.median(speeds[WARM_UP:]), "gb": peak_memory_gb(torch.device("cpu"))}


def score_rung(rung: Rung, pretrained: Path, folder: Path, seed: int) -> dict[str, float]:
    """Fine-tune the demo's model; return its accuracy in English and elsewhere."""
    words = [*DEMO, f"model.path={pretrained}", f"run.dir={folder}", f"seed={seed}"]
    if rung.peer is None:
        report = train(load_config([*words, *rung.words]))
        assert report is not None
        found = {code: score.values["accuracy"] for code, score in report.languages.items()}
    else:
        session, corpus = corpus_of(load_config(words))
        _, examples = one_language(corpus, 0)
        settings = session.config
        warm_up = round(settings.schedule.warmup * settings.train.epochs * len(examples) / BATCH)
        transformers.set_seed(seed)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(pretrained / "model", num_labels=3)
        trainer, *_ = peer_trainer(
            rung, model, examples, bf16=False, seed=seed, num_train_epochs=settings.train.epochs, warmup_steps=warm_up,
            learning_rate=settings.optimizer.lr, weight_decay=settings.optimizer.weight_decay, adam_beta2=0.98,
            adam_epsilon=settings.optimizer.eps,
        )  # fmt: skip
        trainer.train()
        test = session.corpus("test", session.evaluate_languages)
        peer, found = Peer(model, torch.device("cpu")), {}
        for index, code in enumerate(test.languages):
            found[code] = peer.predict(one_language(test, index)[1], 64, rung.peer[1], bf16=False)[1]
        session.world.close()
    others = [value for code, value in found.items() if code != "en"]
    return {"english": found["en"], "others": statistics.mean(others)}


def in_process(what: str, rung: Rung, base: Path, options: argparse.Namespace, seed: int = 1) -> dict[str, float]:
    """Measure a rung in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.ladder", "--work", what, "--only", rung.name, "--base", str(base)]
    command += [
        "--steps",
        str(options.steps),
        "--seed",
        str(seed),
        *(["--data", str(options.data.resolve())] if options.data else []),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{rung.name}: exit code {done.returncode}\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def work(options: argparse.Namespace) -> dict[str, float]:
    """Do one measurement, in this process."""
    rung = next(rung for rung in RUNGS if rung.name == options.only)
    with tempfile.TemporaryDirectory() as folder:
        if options.work == "time":
            return time_rung(rung, options.base, options.data, Path(folder) / "run", options.steps)
        return score_rung(rung, options.base, Path(folder) / "run", options.seed)


def parse(arguments_: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ladder", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder with nli/ and tokenizer/xlmr; without: the packaged sample")
    parser.add_argument("--steps", type=int, default=30, help=f"of a timed run, {WARM_UP} of which do not count")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3, help="of the scores, which are means over them")
    parser.add_argument("--pretrained", type=Path, default=Path("runs/demo_pretrain/seed-1"), help="from make demo")
    parser.add_argument("--only", default="", help="rungs whose names contain this")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path, help="a picture")
    parser.add_argument("--base", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--work", choices=["time", "score"], help=argparse.SUPPRESS)
    return parser.parse_args(arguments_)


def main(arguments_: list[str] | None = None) -> int:
    """Measure all rungs, print the table."""
    options = parse(arguments_)
    if options.work:
        print(json.dumps(work(options)))
        return 0
    rungs = [rung for rung in RUNGS if options.only in rung.name]
    device = torch.device("cpu")
    before, peak = machine(device), MatrixPeak(device, clock("wall", device))
    timed: dict[str, list[dict[str, float]]] = {rung.name: [] for rung in rungs}
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        write_base(base, options.data)
        for number in range(options.rounds):
            for rung in rungs[number % len(rungs) :] + rungs[: number % len(rungs)]:
                timed[rung.name].append(in_process("time", rung, base, options))
                peak.sample()
    pretrained, seeds = options.pretrained.resolve(), range(1, options.seeds + 1)
    scores = {rung.name: [in_process("score", rung, pretrained, options, seed) for seed in seeds] for rung in rungs}
    show(options, rungs, timed, scores, peak, before)
    return 0


def show(
    options: argparse.Namespace, rungs: list[Rung], timed: dict[str, list[dict[str, float]]],
    scores: dict[str, list[dict[str, float]]], peak: MatrixPeak, before: dict[str, Any],
) -> None:  # fmt: skip
    """Print the table; write JSON and picture."""
    speed = {name: statistics.median(one["tokens_per_second"] for one in found) for name, found in timed.items()}
    memory = {name: max(one["gb"] for one in found) for name, found in timed.items()}
    lengths = [42] * 1000  # XNLI's mean: the share of attention hardly depends on it
    lines = []
    for rung in rungs:
        flops = SHAPE.training_flops(lengths, first_tokens_only=rung.peer is None) / sum(lengths)
        lines.append(
            [
                rung.name,
                f"{speed[rung.name]:,.0f}",
                f"{speed[rung.name] / speed[rungs[0].name]:.2f}",
                f"{memory[rung.name]:.2f}",
                f"{speed[rung.name] * flops / peak.median:.0%}" if rung.full else "-",
                *(_percent([one[what] for one in scores[rung.name]]) for what in ("english", "others")),
            ]
        )
    header = ["", "real tokens/s", "of the first", "memory, GB", "of peak", "English", "other 14"]
    print(describe(before))
    print(f"matrix peak {peak.median / 1e12:.3f} TFLOP/s; {options.rounds} rounds of {options.steps} steps\n")
    print(table(header, lines))
    if options.json:
        write_json(options.json, {"machine": before, "peak": peak.median, "timed": timed, "scores": scores})
    if options.svg:
        options.svg.write_text(picture({rung.name: speed[rung.name] for rung in rungs}), encoding="utf-8")


def _percent(values: Sequence[float]) -> str:
    """Return mean and range."""
    low, high = 100 * min(values), 100 * max(values)
    return f"{100 * statistics.mean(values):.1f} ({low:.1f} to {high:.1f})"


def picture(speed: dict[str, float]) -> str:
    """Return bars as SVG that is readable on light and dark pages."""
    row, left, width = 26, 330, 420
    top = max(speed.values())
    bars = []
    for index, (name, value) in enumerate(speed.items()):
        y, length = index * row, width * value / top
        color = "#8a8f98" if name.startswith("Trainer") else "#2f7ed8"
        bars.append(
            f'<text x="{left - 8}" y="{y + 17}" text-anchor="end">{name}</text>'
            f'<rect x="{left}" y="{y + 4}" width="{length:.0f}" height="{row - 8}" rx="2" fill="{color}"/>'
            f'<text x="{left + length + 6:.0f}" y="{y + 17}">{value:,.0f}</text>'
        )
    height, style = row * len(speed) + 4, "text{font:13px sans-serif;fill:#24292f}"
    dark = "@media(prefers-color-scheme:dark){text{fill:#e6edf3}}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 70} {height}" role="img" '
        f'aria-label="Real tokens per second of each rung"><style>{style}{dark}</style>{"".join(bars)}</svg>\n'
    )


if __name__ == "__main__":
    sys.exit(main())
