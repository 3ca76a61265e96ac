"""What each strategy costs on 1, 2 and 4 ranks: tokens per second, memory, bytes on the wire, checkpoints.

    python -m benchmarks.scaling                                          # CPU ranks of this machine, 8 layers x 512
    python -m benchmarks.scaling --shape XL --vocab 250880 --ranks 8 --device cuda --defaults

Every row does the same optimizer steps of `--batch-size` pairs, so more ranks have less work each; one rank is
`single`'s, the others have nothing to divide there. `benchmarks.ranks` says how memory and bytes are measured; on CUDA
memory is the device's, and NCCL's bytes are not seen. Without `--defaults` ZeRO-3's thresholds are 0, or so small a
model would stay gathered and nothing would be divided.

Theory, bytes that a rank sends per step, with n ranks, P parameters, m micro-batches, gradients reduced in float32 and
weights gathered in w bytes (bf16: 2); a ring's reduce-scatter or all-gather sends (n-1)/n of the whole:

    ddp                      2 · 4P              reduce-scatter and all-gather of gradients, once
    zero1                    4P + wP             reduce-scatter of gradients, all-gather of weights, once
    zero2                    m · 4P + wP         gradients are divided, so each micro-batch's are reduced
    zero3, _offload, fsdp2   m · (2 · wP + 4P)   weights gathered for forward and for backward, gradients reduced

Source: ZeRO, arXiv 1910.02054, section 7, which counts elements: 2P for data parallelism, stages 1 and 2, 3P for 3.

"save" writes, syncs and checksums a checkpoint; "load" reads it into a strategy that is there; "resume" verifies it,
builds strategy and optimizer anew, loads, and makes one step.
"""

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import describe, machine, table, write_json
from benchmarks.ranks import Phases, anonymous_gb, bytes_sent, launch, report
from benchmarks.workload import SHAPES, load_examples, our_batches, our_model, step_positions
from xlmrxl_train.config import VARIANTS, Config, StrategyConfig
from xlmrxl_train.model import XLMRobertaXLLayer
from xlmrxl_train.parallel import Blueprint, Strategy, World, make_strategy
from xlmrxl_train.training import checkpoint
from xlmrxl_train.training.checkpoint import Checkpointer
from xlmrxl_train.training.optimizer import OptimizerPlan
from xlmrxl_train.training.state import TrainState

STRATEGIES = ("single", "ddp", "fsdp2", "zero1", "zero2", "zero3", "zero3_offload")
THRESHOLDS = ("persistence_kb", "prefetch_mb", "max_live_mb", "max_reuse_distance_mb")
GRADIENT_BYTES = 4


def theoretical_bytes(strategy: str, ranks: int, parameters: int, micro_batches: int, weight_bytes: int) -> float:
    """Return what a rank sends per step by the formulas above."""
    weights, gradients = weight_bytes * parameters, GRADIENT_BYTES * parameters
    whole = {
        "single": 0,
        "ddp": 2 * gradients,
        "zero1": gradients + weights,
        "zero2": micro_batches * gradients + weights,
    }.get(strategy, micro_batches * (2 * weights + gradients))
    return (ranks - 1) / ranks * whole


def strategy_config(name: str, device: str, *, defaults: bool) -> StrategyConfig:
    """Return a strategy's settings."""
    config: StrategyConfig = VARIANTS["strategy"][name](device=device)
    if hasattr(config, "pin_memory"):
        config.pin_memory = device == "cuda"
    if not defaults:
        for threshold in THRESHOLDS:
            if hasattr(config, threshold):
                setattr(config, threshold, 0.0)
    return config


class Rank:
    """One rank's strategy and its batches."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.config = Config()
        self.config.train.precision = job["precision"]
        self.config.strategy = strategy_config(job["strategy"], job["device"], defaults=job["defaults"])
        self.world = World.open(self.config.strategy)
        data = Path(job["data"]) if job["data"] else None
        self.examples, self.origin = load_examples(data, job["vocab"])
        self.micro_batches = self.parameters = 0

    def build(self) -> Strategy:
        """Return a new strategy with random weights."""
        model = our_model(SHAPES[self.job["shape"]], self.job["vocab"], 0.1, device=torch.device("meta"))
        model.roberta.residual_dtype = torch.float32
        model.roberta.encoder.recompute = self.job["recompute"]
        self.parameters = model.num_parameters()
        blueprint = Blueprint(
            model=model,
            block=XLMRobertaXLLayer,
            source=model.source(None, seed=0),
            make_optimizer=OptimizerPlan(self.config.optimizer, model).build,
        )
        return make_strategy(self.config, self.world, blueprint)

    def step(self, strategy: Strategy, number: int) -> int:
        """Make one step and return its tokens over all ranks."""
        world, positions = self.world, step_positions(self.examples, self.job["batch_size"], number)
        batches = our_batches(self.examples, positions, self.job["budget"], rank=world.rank, ranks=world.size)
        self.micro_batches = len(batches)
        scale = torch.tensor(world.size / len(positions)).to(world.device)
        for index, batch in enumerate(batches):
            strategy.accumulate(batch.to(world.device).inputs, scale, last=index == len(batches) - 1)
        result = strategy.step(1e-5)
        assert not result.skipped and not result.unchanged
        return sum(len(self.examples.ids[position]) for position in positions)


def work(job: dict[str, Any]) -> None:
    """Train some steps, then save, load and resume, on one rank."""
    rank = Rank(job)
    world, started = rank.world, anonymous_gb()
    checkpointer = Checkpointer(Path(job["folder"]), keep=1)
    values = train_and_save(rank, checkpointer)
    gc.collect()  # the first strategy makes room

    def resume() -> None:
        latest, _ = world.first(checkpointer.latest)
        strategy = rank.build()
        state = checkpoint.load(latest, strategy)
        rank.step(strategy, state.step)

    values["seconds"]["resume"] = timed(world, resume)
    files = [file for file in checkpointer.folder.rglob("*") if file.is_file()]
    report(world, job, {
        **values, "started_gb": started, "parameters": rank.parameters, "micro_batches": rank.micro_batches,
        "origin": rank.origin, "checkpoint_bytes": sum(file.stat().st_size for file in files),
    })  # fmt: skip


def train_and_save(rank: Rank, checkpointer: Checkpointer) -> dict[str, Any]:
    """Return what steps, a checkpoint and reading it back take."""
    job, world, phases = rank.job, rank.world, Phases(rank.world.device)
    strategy = rank.build()
    for number in range(job["warm_up"]):
        rank.step(strategy, number)
    world.barrier()
    before = bytes_sent()
    with phases.phase("steps"):
        tokens = sum(rank.step(strategy, job["warm_up"] + number) for number in range(job["steps"]))
        world.barrier()
    sent = bytes_sent() - before
    done = job["warm_up"] + job["steps"]
    seconds = {
        "save": timed(world, lambda: checkpointer.save(strategy, TrainState(step=done))),
        "load": timed(world, lambda: checkpoint.load(checkpointer.path(done), strategy)),
    }
    return {
        "tokens_per_second": tokens / phases.seconds["steps"],
        "bytes_sent": sent / job["steps"],
        "peak_gb": phases.peak_gb["steps"],
        "seconds": seconds,
    }


def timed(world: World, action: Callable[[], Any]) -> float:
    """Return the seconds until every rank has done it."""
    world.barrier()
    began = time.perf_counter()
    action()
    world.barrier()
    return time.perf_counter() - began


def measure(options: argparse.Namespace, strategy: str, ranks: int) -> dict[str, Any]:
    """Return one row: of all ranks the most memory, bytes and seconds."""
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        job = {
            "strategy": strategy, "folder": folder, "shape": options.shape, "vocab": options.vocab,
            "device": options.device, "precision": options.precision, "steps": options.steps,
            "warm_up": options.warm_up, "batch_size": options.batch_size, "defaults": options.defaults,
            "budget": options.tokens_per_micro_batch, "recompute": options.recompute,
            "data": str(options.data) if options.data else None,
        }  # fmt: skip
        reports = launch("benchmarks.scaling", ranks, job, limit=60 * options.minutes)
    first = reports[0]
    weight_bytes = 2 if options.precision == "bf16" else 4
    return {
        **first,
        "strategy": strategy,
        "ranks": ranks,
        "peak_gb": max(values["peak_gb"] for values in reports),
        "bytes_sent": max(values["bytes_sent"] for values in reports),
        "bytes_by_theory": theoretical_bytes(
            strategy, ranks, first["parameters"], first["micro_batches"], weight_bytes
        ),
    }  # fmt: skip


def line(row: dict[str, Any], *, cuda: bool) -> list[str]:
    """Return a row of the table."""
    seconds = row["seconds"]
    return [
        row["strategy"], str(row["ranks"]), f"{row['tokens_per_second']:,.0f}", f"{row['peak_gb']:.2f}",
        "-" if cuda else f"{row['bytes_sent'] / 1e6:,.0f}", f"{row['bytes_by_theory'] / 1e6:,.0f}",
        f"{seconds['save']:.1f}", f"{seconds['load']:.1f}", f"{seconds['resume']:.1f}",
    ]  # fmt: skip


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder with nli/xnli and tokenizer/xlmr; absent: made-up ids")
    parser.add_argument("--shape", choices=SHAPES, default="8x512")
    parser.add_argument("--vocab", type=int, default=8000, help="rows of the embedding")
    parser.add_argument("--strategies", nargs="*", choices=STRATEGIES, default=STRATEGIES)
    parser.add_argument("--ranks", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--recompute", default="none", help="as train.recompute")
    parser.add_argument("--batch-size", type=int, default=16, help="pairs of a step, over all ranks")
    parser.add_argument("--tokens-per-micro-batch", type=int, default=8192, help="fewer: more micro-batches")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--defaults", action="store_true", help="ZeRO-3 with the thresholds of the configuration")
    parser.add_argument("--folder", type=Path, help="of checkpoints; default: the temporary folder")
    parser.add_argument("--minutes", type=float, default=5.0, help="allowed per row")
    parser.add_argument("--json", type=Path, help="write the results here too")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return an exit code."""
    options = parse(arguments)
    torch.set_num_threads(1)  # as in every rank
    before, cuda = machine(torch.device(options.device)), options.device == "cuda"
    wanted = [(strategy, ranks) for strategy in options.strategies for ranks in options.ranks]
    rows = []
    for strategy, ranks in wanted:
        if (strategy == "single") == (ranks == 1):
            rows.append(measure(options, strategy, ranks))
            print(*line(rows[-1], cuda=cuda), flush=True)
    first = rows[0]
    print(
        f"\n{options.shape}, {options.vocab:,} rows, {first['parameters']:,} parameters, {options.precision}, "
        f"{options.batch_size} pairs a step, {first['micro_batches']} micro-batches, {options.steps} steps after "
        f"{options.warm_up}, checkpoint of {first['checkpoint_bytes'] / 1e6:.0f} MB, {first['origin']}"
    )
    print(describe(before) + f", load at the end {machine(torch.device('cpu'))['load']}\n")
    header = ["", "ranks", "tokens/s", "peak GB", "MB sent", "MB by theory", "save s", "load s", "resume s"]
    print(table(header, [line(row, cuda=cuda) for row in rows]))
    if options.json:
        values = {key: str(value) for key, value in vars(options).items()}
        write_json(options.json, {"options": values, "machine": before, "rows": rows})
    return 0


if __name__ == "__main__":
    if "--job" in sys.argv:
        work(json.loads(sys.argv[sys.argv.index("--job") + 1]))
    else:
        sys.exit(main())
