"""One training step of adapters on XLM-R XL, and the memory that it takes.

    python -m benchmarks.adapter_step                          # 36 layers x 2560, 250,880 rows; 7 GB of disk; minutes
    python -m benchmarks.adapter_step --device cuda --tokens 8192
    python -m benchmarks.adapter_step --shape 4x512 --rows 25088

A file of random bf16 weights in the Hub's layout is read as a run reads it, each way in a process of its own: LoRA of
rank 16 on all matrices of the layers over bf16, int8 and nf4 weights, precision=bf16, all layers recomputed. Then come
forward, backward and optimizer on one micro-batch, twice: the moments are there from the second on. Memory is anonymous
memory, on CUDA the device's.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import describe, machine, table, write_json
from benchmarks.ranks import ROOT, Phases, anonymous_gb
from benchmarks.startup import XL_ROWS, make_checkpoint
from benchmarks.workload import SHAPES, Examples, Ids, classification, our_batches
from xlmrxl_train.config import Config, LoraTuningConfig, SingleConfig
from xlmrxl_train.model import XLMRobertaXLLayer
from xlmrxl_train.parallel import Blueprint, World, make_strategy
from xlmrxl_train.session import build_model
from xlmrxl_train.training.adapters import fill_rounded
from xlmrxl_train.training.optimizer import OptimizerPlan

LENGTH = 64  # tokens of a sequence
WAYS = {"bf16": None, "int8": "int8", "nf4": "nf4"}
PHASES = ("load", "first step", "second step")


def config_of(folder: Path, way: str, device: str) -> Config:
    """Return the configuration of a run of LoRA."""
    config = Config(strategy=SingleConfig(device=device), tuning=LoraTuningConfig(weights=WAYS[way]))
    config.model.path, config.train.recompute, config.optimizer.lr = str(folder), "full", 1e-4
    return config


def work(folder: Path, way: str, rows: int, tokens: int, device: str) -> dict[str, Any]:
    """Load, and make two steps, in this process."""
    import peft  # noqa: F401 - libraries are not what is measured

    config = config_of(folder, way, device)
    world = World.open(config.strategy)
    phases, began = Phases(world.device), anonymous_gb()
    with phases.phase("load"):
        task = classification(Ids(rows))
        model, source = build_model(config, task, task.tokenizer)
        plan = OptimizerPlan(config.optimizer, model)
        blueprint = Blueprint(model=model, block=XLMRobertaXLLayer, source=source, make_optimizer=plan.build)
        strategy = make_strategy(config, world, blueprint)
        fill_rounded(model, source, world.device)
    count = max(1, tokens // LENGTH)
    ids = [[0, *range(10 + number, 8 + number + LENGTH), 2] for number in range(count)]
    examples = Examples(ids=ids, labels=[number % 3 for number in range(count)])
    [batch] = our_batches(examples, range(count), 1 << 30)
    scale, losses = torch.tensor(1 / count, device=world.device), []
    for name in PHASES[1:]:
        with phases.phase(name):
            losses.append(float(strategy.accumulate(batch.to(world.device).inputs, scale, last=True)) / count)
            result = strategy.step(1e-4)
        assert not result.skipped and not result.unchanged
    return {
        "trained": sum(parameter.numel() for parameter in strategy.parameters.values()),
        "began_gb": began if world.device.type == "cpu" else 0.0,
        "peak_gb": phases.peak_gb,
        "seconds": phases.seconds,
        "tokens": sum(map(len, ids)),
        "losses": losses,
    }


def run(folder: Path, ways: Sequence[str], rows: int, tokens: int, device: str) -> dict[str, dict[str, Any]]:
    """Measure every way in a process of its own."""
    found = {}
    for way in ways:
        command = [sys.executable, "-m", "benchmarks.adapter_step", "--work", way, "--folder", str(folder)]
        command += ["--rows", str(rows), "--tokens", str(tokens), "--device", device]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{way}: exit code {done.returncode}\n{done.stderr[-4000:]}")
        found[way] = json.loads(done.stdout.splitlines()[-1])
        print(f"{way}: done", file=sys.stderr, flush=True)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Write the file, make steps in every way, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SHAPES), default="XL")
    parser.add_argument("--rows", type=int, default=XL_ROWS)
    parser.add_argument("--tokens", type=int, default=512, help="of the micro-batch")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--folder", type=Path, help="where the file is, or is written and kept")
    parser.add_argument("--output", type=Path, help="a JSON file for the numbers")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--work", choices=list(WAYS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.work:
        print(json.dumps(work(options.folder, options.work, options.rows, options.tokens, options.device)))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "model"
        if not (folder / "config.json").is_file():
            make_checkpoint(folder, options.shape, options.rows)
        found = run(folder, options.ways, options.rows, options.tokens, options.device)
    print(describe(machine(torch.device(options.device))))
    header = ["weights below", "trained", "tokens", "GB before", *(f"{name}, peak GB" for name in PHASES), "second, s"]
    rows = [
        [way, f"{values['trained']:,}", f"{values['tokens']:,}", f"{values['began_gb']:.2f}",
         *(f"{values['peak_gb'][name]:.2f}" for name in PHASES), f"{values['seconds'][PHASES[-1]]:.1f}"]
        for way, values in found.items()
    ]  # fmt: skip
    print(table(header, rows))
    if options.output:
        write_json(options.output, {"machine": machine(torch.device(options.device)), "found": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
