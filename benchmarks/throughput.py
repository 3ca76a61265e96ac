"""Our training step against transformers' Trainer on the same work, interleaved batch by batch in one process.

    python -m benchmarks.throughput --data ../shared/data                     # 8 layers x 512, ids folded to 8,000 rows
    python -m benchmarks.throughput --data ../shared/data --vocab real --shape 2xXL --json out.json
    python -m benchmarks.throughput --check                                   # both models compute the same

Tokens are real ones: padding counts as nothing. Both sides get batches that are ready, cast matrix products to bf16 by
autocast, clip, and step fused AdamW; the peer's step is Trainer's own (`benchmarks/peer.py`). The share of the matrix
peak is FLOPs over real tokens (shapes' `training_flops`) over the rate of a large bf16 product in the same run.
"""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import MatrixPeak, clock, describe, machine, peak_memory_gb, spread, table, timed, write_json
from benchmarks.peer import Peer, grouped_positions, peer_model
from benchmarks.workload import (
    REAL_VOCABULARY,
    SHAPES,
    Examples,
    load_examples,
    our_batches,
    our_model,
    our_step,
    our_strategy,
    padded_batch,
    step_positions,
)
from xlmrxl_train.parallel import Strategy

OURS = "ours, random order"
COMPILED = "ours, train.compile"  # with --compile
VARIANTS = {
    OURS: "",
    "Trainer, padded to 128 (run_xnli's default)": "sdpa",
    "Trainer, dynamic padding, random order, eager": "eager",
    "Trainer, group_by_length, eager (its best)": "eager",
}
DEFAULT, RANDOM, GROUPED = list(VARIANTS)[1:]


@dataclass(kw_only=True)
class Row:
    """One way to train."""

    name: str
    tokens_per_second: list[float] = field(default_factory=list)
    flops_per_second: list[float] = field(default_factory=list)
    seconds: float = 0.0
    tokens: int = 0

    def add(self, examples: Examples, positions: list[int], options: argparse.Namespace, seconds: float) -> None:
        lengths = [len(examples.ids[position]) for position in positions]
        self.tokens_per_second.append(sum(lengths) / seconds)
        flops = SHAPES[options.shape].training_flops(lengths, first_tokens_only=self.name in (OURS, COMPILED))
        self.flops_per_second.append(flops / seconds)
        self.seconds += seconds
        self.tokens += sum(lengths)


class Bench:
    """Both models, and one step of each variant on one batch."""

    def __init__(self, options: argparse.Namespace, names: list[str]) -> None:
        self.options = options
        self.device = torch.device(options.device)
        self.now = clock(options.clock, self.device)
        rows = REAL_VOCABULARY if options.vocab == "real" else int(options.vocab)
        self.examples, self.origin = load_examples(options.data, rows)
        shape = SHAPES[options.shape]
        self.peer = None
        self.ours: dict[str, Strategy] = {}
        for name in {OURS, COMPILED} & set(names):
            torch.manual_seed(0)
            model = our_model(shape, rows, options.dropout, device=self.device)
            words = None if options.check or options.embeddings == "trainable" else self.examples.words
            self.ours[name] = our_strategy(model, self.device, recompute=options.recompute, words=words)
            for layer in model.roberta.encoder.layer if name == COMPILED else []:
                layer.compile_for_training()
        if set(names) - {OURS, COMPILED}:
            theirs = peer_model(shape, rows, options.dropout, "eager", self.device)
            self.peer = Peer(theirs, options.batch_size, self.device)
        self.grouped = grouped_positions(self.examples, options.batch_size)
        order = torch.randperm(len(self.grouped), generator=torch.Generator().manual_seed(1)).tolist()
        self.grouped = [self.grouped[index] for index in order]

    def step(self, name: str, index: int) -> tuple[list[int], Callable[[], Any]]:
        """Return the examples of step `index` and the action to time; batches are made and moved before it."""
        size = self.options.batch_size
        if name == GROUPED:
            positions = self.grouped[index % len(self.grouped)]
        else:
            positions = step_positions(self.examples, size, index)
        if name in self.ours:
            batches = our_batches(self.examples, positions, self.options.tokens_per_micro_batch)
            batches = [batch.to(self.device) for batch in batches]
            return positions, lambda: our_step(self.ours[name], batches)
        peer = self.peer
        assert peer is not None
        batch = padded_batch(self.examples, positions, 128 if name == DEFAULT else None)
        moved = {key: value.to(self.device) for key, value in batch.items()}
        peer.trainer.model.set_attn_implementation(VARIANTS[name])
        return positions, lambda: peer.step(moved)


def measure(options: argparse.Namespace, names: list[str]) -> tuple[list[Row], MatrixPeak, Bench]:
    """Run `steps` rounds after a warm-up, each variant once per round."""
    bench = Bench(options, names)
    peak = MatrixPeak(bench.device, bench.now)
    rows = {name: Row(name=name) for name in names}
    for index in range(options.steps + options.warm_up):
        turn = index % len(names)
        for name in names[turn:] + names[:turn]:  # none of them always comes first
            positions, action = bench.step(name, index)
            seconds = timed(action, bench.now)
            if index >= options.warm_up:
                rows[name].add(bench.examples, positions, options, seconds)
        peak.sample()
    return list(rows.values()), peak, bench


def memory_of(options: argparse.Namespace, name: str) -> float:
    """Return the peak memory of one variant alone, in a process of its own."""
    command = [
        sys.executable, "-m", "benchmarks.throughput", "--memory-of", name, "--shape", options.shape,
        "--vocab", options.vocab, "--device", options.device, "--batch-size", str(options.batch_size),
        "--recompute", options.recompute, "--embeddings", options.embeddings,
        "--tokens-per-micro-batch", str(options.tokens_per_micro_batch),
        *(["--data", str(options.data)] if options.data else []),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        return float("nan")
    return float(done.stdout.split()[-1])


def check(options: argparse.Namespace) -> int:
    """Make sure that both models do the same work: equal losses before and after a step, without dropout."""
    options.dropout = 0.0
    bench = Bench(options, list(VARIANTS))
    ours = bench.ours[OURS]
    assert bench.peer is not None
    bench.peer.trainer.model.load_state_dict(ours.model.state_dict())
    worst = 0.0
    for index in range(3):
        positions = step_positions(bench.examples, options.batch_size, index)
        batches = [batch.to(bench.device) for batch in our_batches(bench.examples, positions, 1 << 20)]
        padded = {key: value.to(bench.device) for key, value in padded_batch(bench.examples, positions).items()}
        mine, theirs = our_step(ours, batches), bench.peer.step(padded)
        worst = max(worst, abs(mine - theirs) / theirs)
        print(f"step {index}: loss {mine:.6f} (ours) {theirs:.6f} (transformers)")
    print(f"largest relative difference {worst:.1e} in bf16; allowed 5e-3")
    return 0 if worst < 5e-3 else 1


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder with nli/xnli and tokenizer/xlmr; absent: made-up ids")
    parser.add_argument("--shape", choices=SHAPES, default="8x512")
    parser.add_argument("--vocab", default="8000", help="rows of the embedding, or real (250,002)")
    parser.add_argument("--embeddings", choices=["auto", "trainable"], default="auto", help="ours: model.embeddings")
    parser.add_argument("--batch-size", type=int, default=128 if cuda else 32)
    parser.add_argument("--steps", type=int, default=30, help="measured rounds")
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--threads", type=int, help="default: torch's")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: processor time, for --threads 1")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--recompute", choices=["none", "full"], default="none")
    parser.add_argument("--compile", action="store_true", help=f'add "{COMPILED}"')
    parser.add_argument("--tokens-per-micro-batch", type=int, default=8192)
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), help="substrings of variants' names")
    parser.add_argument("--no-memory", action="store_true", help="skip the processes that measure peak memory")
    parser.add_argument("--json", type=Path, help="write the results here too")
    parser.add_argument("--check", action="store_true", help="compare losses instead of times")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return an exit code."""
    options = parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.check:
        return check(options)
    if options.memory_of:
        options.steps, options.warm_up = 4, 0
        bench = Bench(options, [options.memory_of])
        for index in range(options.steps):
            bench.step(options.memory_of, index)[1]()
        print(peak_memory_gb(bench.device))
        return 0
    names = [name for name in VARIANTS if any(wanted in name for wanted in options.variants)]
    names += [COMPILED] * options.compile
    before = machine(torch.device(options.device))
    rows, peak, bench = measure(options, names)
    memory = {row.name: float("nan") if options.no_memory else memory_of(options, row.name) for row in rows}
    report(options, rows, peak, bench, memory, before)
    return 0


def paired(ours: Row, row: Row) -> float:
    """Return the median over rounds of our rate over that row's in the same round, which drift does not touch."""
    rates = zip(ours.tokens_per_second, row.tokens_per_second, strict=True)
    return statistics.median(mine / theirs for mine, theirs in rates)


def report(
    options: argparse.Namespace, rows: list[Row], peak: MatrixPeak, bench: Bench, memory: dict[str, float],
    before: dict[str, Any],
) -> None:  # fmt: skip
    """Print the table and write the JSON."""
    medians = {row.name: statistics.median(row.tokens_per_second) for row in rows}
    ours = next((row for row in rows if row.name == OURS), None)
    unit = "tokens/s" if options.clock == "wall" else "tokens per processor second"
    lines = [
        [
            row.name,
            f"{medians[row.name]:,.0f}",
            spread(row.tokens_per_second),
            f"{row.tokens / row.seconds:,.0f}",
            "-" if ours is None else f"{paired(ours, row):.2f}",
            f"{statistics.median(row.flops_per_second) / peak.median:.0%}",
            f"{memory[row.name]:.2f}",
        ]
        for row in rows
    ]
    print(
        f"\n{options.shape}, vocabulary {options.vocab}, batch {options.batch_size}, bf16, dropout {options.dropout}, "
        f"recompute {options.recompute}, {options.steps} rounds, {bench.origin}"
    )
    print(describe(before))
    print(f"matrix peak {peak.median / 1e12:.3f} TFLOP/s (bf16 {peak.size} cubed, {spread(peak.samples)})\n")
    header = ["", f"real {unit} (median)", "quartiles", "mean", "ours / this", "of peak", "memory GB"]
    print(table(header, lines))
    if options.json:
        values = {
            "options": {key: str(value) for key, value in vars(options).items()},
            "machine": before,
            "matrix_peak": peak.median,
            "rows": {
                row.name: {
                    "tokens_per_second": row.tokens_per_second,
                    "share_of_peak": statistics.median(row.flops_per_second) / peak.median,
                    "peak_memory_gb": memory[row.name],
                }
                for row in rows
            },
        }
        write_json(options.json, values)


if __name__ == "__main__":
    sys.exit(main())
