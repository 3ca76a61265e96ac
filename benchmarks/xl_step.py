"""The whole of XLM-R XL on one device: each way to train, one after the other in one process, against the Trainer's.

    python -m benchmarks.xl_step --data ../shared/data --json out.json --profile profile.txt    # an 80 GB GPU or larger
    python -m benchmarks.xl_step --shape tiny --rows 1000 --device cpu --steps 3                  # the same, small

A file of random bf16 weights in the Hub's layout is read, as a run reads it; then come optimizer steps on XNLI's pairs
(test and development), batch 128, for both sides. Ours are made from `recipe=xnli` with the way's overrides, so memory
can be compared with what `xlmrxl plan` says of the same configuration. The peer's step is Trainer's own, on batches
that are ready. Only one model at a time fits, so ways cannot take turns; the matrix peak is sampled beside each.
"""

import argparse
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch

from benchmarks.ladder import corpus_of
from benchmarks.measure import MatrixPeak, clock, describe, machine, peak_memory_gb, table, timed, write_json
from benchmarks.peer import Peer, grouped_positions, peer_model
from benchmarks.startup import XL_ROWS, make_checkpoint
from benchmarks.workload import SHAPES, load_examples, our_batches, our_step, padded_batch, step_positions
from xlmrxl_train import load_config
from xlmrxl_train.config import LoraTuningConfig
from xlmrxl_train.forecast import plan
from xlmrxl_train.model import XLMRobertaXLLayer
from xlmrxl_train.parallel import Blueprint, make_strategy
from xlmrxl_train.session import SAMPLE_TOKENIZER, build_model
from xlmrxl_train.training.adapters import fill_rounded
from xlmrxl_train.training.optimizer import OptimizerPlan
from xlmrxl_train.training.vocabulary import frozen_dtypes, train_rows


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to train."""

    name: str
    words: tuple[str, ...] = ()  # overrides of ours
    peer: tuple[str, str] | None = None  # the peer's attention, and how its batches are made
    full: bool = True  # whether all weights of the layers learn and are computed once, so that FLOPs can be counted


WAYS = (
    Way(name="ours"),
    Way(name="ours, attention in groups", words=("model.attn_implementation=grouped",)),
    Way(name="ours, train.compile", words=("train.compile=true",)),
    Way(name="ours, fp8", words=("train.matmul=fp8",)),
    Way(name="ours, fp8, train.compile", words=("train.matmul=fp8", "train.compile=true")),
    Way(name="ours, all rows trained", words=("model.embeddings=trainable",)),
    Way(name="ours, train.recompute=full", words=("train.recompute=full",)),
    Way(name="ours, optimizer=adamw_8bit", words=("optimizer=adamw_8bit",)),
    Way(name="ours, tuning=lora", words=("tuning=lora", "optimizer.lr=1e-4"), full=False),
    Way(name="ours, tuning=lora, nf4", words=("tuning=lora", "tuning.weights=nf4", "optimizer.lr=1e-4"), full=False),
    Way(
        name="ours, tuning=lora, nf4, recomputed, 1,024 tokens at a time",
        words=(
            "tuning=lora", "tuning.weights=nf4", "optimizer.lr=1e-4", "train.recompute=full",
            "train.tokens_per_micro_batch=1024",
        ),
        full=False,
    ),
    Way(name="Trainer, group_by_length, sdpa", peer=("sdpa", "grouped")),
    Way(name="Trainer, group_by_length, eager", peer=("eager", "grouped")),
    Way(name="Trainer, dynamic padding, random order, sdpa", peer=("sdpa", "random")),
    Way(name="Trainer, padded to 128 (run_xnli's default)", peer=("sdpa", "padded")),
)  # fmt: skip


@dataclass(kw_only=True)
class Stepper:
    """A way, ready: what makes step `index`, the lengths of its sequences, and what the plan says of its memory."""

    make: Callable[[int], tuple[list[int], Callable[[], Any]]]
    planned_gb: float | None
    seconds: float  # until it was ready


@contextmanager
def ready(way: Way, folder: Path, options: argparse.Namespace) -> Iterator[Stepper]:
    """Yield a way's stepper; its memory is free again afterwards."""
    began = time.monotonic()
    with ExitStack() as stack:
        make, planned = (theirs if way.peer else ours)(way, folder, options, stack)
        yield Stepper(make=make, planned_gb=planned, seconds=time.monotonic() - began)
        del make


def ours(way: Way, folder: Path, options: argparse.Namespace, stack: ExitStack) -> tuple[Any, float | None]:
    """Open a session as a run would, and build its strategy."""
    data = options.data
    tokenizer = data / "tokenizer" / "xlmr" / "tokenizer.json.gz" if data else SAMPLE_TOKENIZER
    config = load_config(
        [
            "recipe=xnli", f"model.path={folder}", f"tokenizer.path={tokenizer}",
            f"train.batch_size={options.batch_size}",
            f"data.root={data}" if data else "data.source=sample", f"run.dir={folder}/run", "train.precision=bf16",
            f"strategy.device={options.device}", "evaluate.every=0", "evaluate.test=false", *way.words,
        ]
    )  # fmt: skip
    session, _ = corpus_of(config)  # tokenised then, and known to the plan
    stack.callback(session.world.close)
    planned = plan(config).training / 1e9 if not options.no_plan else None
    examples, _ = load_examples(options.data, options.rows)
    model, weights = build_model(config, session.task, session.tokenizer)
    if config.tuning.name == "full" and config.model.embeddings == "auto":
        train_rows(model, weights, examples.words)
    blueprint = Blueprint(
        model=model,
        block=XLMRobertaXLLayer,
        source=weights,
        kept=frozen_dtypes(config, model, weights),
        make_optimizer=OptimizerPlan(config.optimizer, model).build,
    )
    strategy, device = make_strategy(config, session.world, blueprint), session.world.device
    if isinstance(config.tuning, LoraTuningConfig):
        fill_rounded(model, weights, device)
    budget = int(config.train.tokens_per_micro_batch)

    def make(index: int) -> tuple[list[int], Callable[[], Any]]:
        positions = step_positions(examples, options.batch_size, index)
        parts = [batch.to(device) for batch in our_batches(examples, positions, budget)]
        return [len(examples.ids[position]) for position in positions], lambda: our_step(strategy, parts)

    return make, planned


def theirs(way: Way, folder: Path, options: argparse.Namespace, stack: ExitStack) -> tuple[Any, float | None]:
    """Put transformers' model into transformers' Trainer."""
    assert way.peer is not None
    attention, batching = way.peer
    device, size = torch.device(options.device), options.batch_size
    examples, _ = load_examples(options.data, options.rows)
    torch.manual_seed(0)
    peer = Peer(peer_model(SHAPES[options.shape], options.rows, 0.1, attention, device), size, device)
    groups = grouped_positions(examples, size)
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(1)).tolist()

    def make(index: int) -> tuple[list[int], Callable[[], Any]]:
        grouped = batching == "grouped"
        positions = groups[order[index % len(groups)]] if grouped else step_positions(examples, size, index)
        batch = padded_batch(examples, positions, 128 if batching == "padded" else None)
        moved = {name: tensor.to(device) for name, tensor in batch.items()}
        return [len(examples.ids[position]) for position in positions], lambda: peer.step(moved)

    return make, None


def measure(way: Way, folder: Path, options: argparse.Namespace, peak: MatrixPeak, now: Any) -> dict[str, Any]:
    """Return a way's numbers."""
    device = torch.device(options.device)
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    rates, flops, losses, blocks = [], [], [], 0
    with ready(way, folder, options) as stepper:
        loading = peak_memory_gb(device)
        if cuda:
            torch.cuda.reset_peak_memory_stats(device)
        for index in range(options.warm_up + options.steps):
            lengths, action = stepper.make(index)
            values: list[float] = []
            seconds = timed(lambda a=action, v=values: v.append(a()), now)
            losses.append(values[0])
            if index == options.warm_up and cuda:
                blocks = torch.cuda.memory_stats(device)["num_device_alloc"]
            if index >= options.warm_up:
                rates.append(sum(lengths) / seconds)
                shape = SHAPES[options.shape]
                flops.append(shape.training_flops(lengths, first_tokens_only=way.peer is None) / seconds)
            peak.sample()
        memory = peak_memory_gb(device)
        blocks = torch.cuda.memory_stats(device)["num_device_alloc"] - blocks if cuda else 0
        again = [sum(lengths) / timed(action, now) for _ in range(3)]
        if options.profile and way is options.ways[0]:
            profile(stepper, options)
        planned, ready_after = stepper.planned_gb, stepper.seconds
        del stepper, action
    gc.collect()
    if cuda:
        torch.cuda.empty_cache()
    return {
        "tokens_per_second": rates,
        "share_of_peak": statistics.median(flops) / peak.median if way.full else None,
        "gb": memory,
        "loading_gb": loading,
        "planned_gb": planned,
        "ready_s": ready_after,
        "same_batch_again": again,
        "blocks_from_the_driver": blocks,  # in measured steps
        "losses": losses,
    }


def profile(stepper: Stepper, options: argparse.Namespace) -> None:
    """Write which operations two steps spend their time in."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if options.device == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    _, action = stepper.make(1)
    with torch.profiler.profile(activities=activities) as record:
        began = time.perf_counter()
        action()
        action()
        if options.device == "cuda":
            torch.cuda.synchronize()
        wall = time.perf_counter() - began
    kind = "self_device_time_total" if options.device == "cuda" else "self_cpu_time_total"
    events = record.key_averages()
    busy = sum(getattr(event, kind) for event in events if event.device_type.name != "CPU") / 1e6
    head = f"two steps: {wall:.3f} s wall under the profiler, kernels {busy:.3f} s\n"
    options.profile.write_text(
        head
        + events.table(sort_by=kind, row_limit=70, max_name_column_width=110)
        + events.table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=60),
        encoding="utf-8",
    )


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.xl_step", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder with nli/ and tokenizer/xlmr; without: the packaged sample")
    parser.add_argument("--shape", choices=SHAPES, default="XL")
    parser.add_argument("--rows", type=int, default=XL_ROWS, help="of the embedding")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--only", nargs="*", default=["*"], help="ways whose names match one of these patterns")
    parser.add_argument("--no-plan", action="store_true", help="do not predict memory")
    parser.add_argument("--minutes", type=float, default=60.0, help="no way begins after this time")
    parser.add_argument("--profile", type=Path, help="write a profile of the first way here")
    parser.add_argument("--folder", type=Path, help="where the weights are, or are written and kept")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    options.ways = [way for way in WAYS if any(fnmatch(way.name, word) for word in options.only)]
    return options


def main(arguments: list[str] | None = None) -> int:
    """Measure all ways and print the table; a way that fails is named, and the others go on."""
    options = parse(arguments)
    ends = time.monotonic() + 60 * options.minutes
    device = torch.device(options.device)
    before, now = machine(device), clock("wall", device)
    peak, found, failed = MatrixPeak(device, now), {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "model"
        if not (folder / "config.json").is_file():
            seconds = timed(lambda: make_checkpoint(folder, options.shape, options.rows, options.device), now)
            print(f"weights written in {seconds:.1f} s", file=sys.stderr, flush=True)
        for way in options.ways:
            if time.monotonic() > ends:
                failed[way.name] = "not run: the time was up"
                continue
            try:
                found[way.name] = measure(way, folder, options, peak, now)
            except Exception as error:  # out of memory, say: that way's result
                failed[way.name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]:.300}"
                error.__traceback__ = None  # which holds the model
                gc.collect()
                if device.type == "cuda":
                    torch.cuda.empty_cache()
            print(way.name, found.get(way.name) or failed[way.name], file=sys.stderr, flush=True)
            if options.json:
                write_json(options.json, {"machine": before, "peak": peak.median, "found": found, "failed": failed})
    show(options, found, failed, peak, before)
    return 1 if failed else 0


def show(
    options: argparse.Namespace, found: dict[str, dict[str, Any]], failed: dict[str, str], peak: MatrixPeak,
    before: dict[str, Any],
) -> None:  # fmt: skip
    """Print the table."""
    speed = {name: statistics.median(values["tokens_per_second"]) for name, values in found.items()}
    first = next(iter(speed.values()), float("nan"))
    lines = [
        [
            name,
            f"{speed[name]:,.0f}",
            f"{first / speed[name]:.2f}",
            "-" if values["share_of_peak"] is None else f"{values['share_of_peak']:.0%}",
            f"{values['gb']:.1f}",
            "-" if values["planned_gb"] is None else f"{values['planned_gb']:.1f}",
            f"{values['ready_s']:.0f}",
        ]
        for name, values in found.items()
    ] + [[name, reason[:60], "", "", "", "", ""] for name, reason in failed.items()]
    print(describe(before))
    print(f"{options.shape}, batch {options.batch_size}, bf16; matrix peak {peak.median / 1e12:.1f} TFLOP/s\n")
    print(table(["", "real tokens/s", "first / this", "of peak", "GB", "planned GB", "ready after, s"], lines))


if __name__ == "__main__":
    sys.exit(main())
