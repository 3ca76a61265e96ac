"""Anonymous memory and seconds of loading a model for use, against the size of its file.

    python -m benchmarks.loading                               # 36 layers x 2560, 7 GB of bf16; 7 GB of disk
    python -m benchmarks.loading --shape 8x512 --rows 5120     # the same, small

A file of random bf16 weights in the Hub's layout is read as a user does: onto the CPU, with device_map="auto", with
memory for half of it (the rest stays on disk), and rounded to int4 on the way; each in a process of its own, with one
forward pass after it. Required: peak anonymous memory while loading is under 1.15 times the weights held.
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
from benchmarks.workload import SHAPES
from xlmrxl_train.model import QuantizationConfig, XLMRobertaXLForMaskedLM
from xlmrxl_train.model.quantized_weights import num_bytes

LIMIT = 1.15  # times the weights held
SMALLEST_GB = 0.5  # a smaller model says nothing: the libraries take as much
WAYS = ("cpu", "device_map=auto", "half of it on disk", "int4")


def options_of(way: str, size: int) -> dict[str, Any]:
    """Return what `from_pretrained` is given."""
    return {
        "cpu": {},
        "device_map=auto": {"device_map": "auto"},
        "half of it on disk": {"device_map": "auto", "max_memory": {"cpu": size // 2}},
        "int4": {"quantization_config": QuantizationConfig(weights="int4")},
    }[way]


def work(folder: Path, way: str) -> dict[str, float]:
    """Load once and compute once, in this process."""
    device = torch.device("cpu")
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    options = options_of(way, size)
    if "quantization_config" in options:
        import torchao.quantization  # noqa: F401 - libraries are not what is measured
    else:
        import accelerate  # noqa: F401
    before, phases = anonymous_gb(), Phases(device)
    with phases.phase("load"):
        model = XLMRobertaXLForMaskedLM.from_pretrained(folder, **options)
    held = sum(num_bytes(parameter) for parameter in model.parameters() if parameter.device.type != "meta")
    ids = torch.arange(5, 37).repeat(2, 1)
    with phases.phase("forward"), torch.no_grad():
        finite = bool(model(ids, torch.ones_like(ids)).logits.isfinite().all())
    return {
        "held_gb": held / 1e9,
        "load_gb": phases.peak_gb["load"] - before,
        "forward_gb": phases.peak_gb["forward"] - before,
        "load_s": phases.seconds["load"],
        "forward_s": phases.seconds["forward"],
        "finite": finite,
    }


def run(folder: Path, ways: Sequence[str] = WAYS) -> dict[str, dict[str, float]]:
    """Measure every way in a process of its own."""
    found = {}
    for way in ways:
        command = [sys.executable, "-m", "benchmarks.loading", "--work", way, "--folder", str(folder)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{way}: exit code {done.returncode}\n{done.stderr[-4000:]}")
        found[way] = json.loads(done.stdout.splitlines()[-1])
    return found


def faults_of(found: dict[str, dict[str, float]]) -> list[str]:
    """Return which requirement does not hold."""
    faults = [f"{way}: the logits are not finite" for way, values in found.items() if not values["finite"]]
    for way, values in found.items():
        if values["held_gb"] >= SMALLEST_GB and values["load_gb"] > LIMIT * values["held_gb"]:
            faults.append(
                f"{way}: {values['load_gb']:.2f} GB while loading, more than {LIMIT} x {values['held_gb']:.2f}"
            )
    return faults


def main(arguments: list[str] | None = None) -> int:
    """Write the file, load it in every way, print a table; 1 where a requirement does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SHAPES), default="XL")
    parser.add_argument("--rows", type=int, default=XL_ROWS)
    parser.add_argument("--folder", type=Path, help="where the file is, or is written and kept")
    parser.add_argument("--output", type=Path, help="a JSON file for the numbers")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--work", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.work:
        print(json.dumps(work(options.folder, options.work)))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "model"
        if not (folder / "config.json").is_file():
            make_checkpoint(folder, options.shape, options.rows)
        found = run(folder, options.ways)
    print(describe(machine(torch.device("cpu"))))
    header = ["way", "weights held, GB", "peak while loading, GB", "ratio", "seconds", "peak in forward, GB", "seconds"]
    rows = [
        [
            way,
            *(f"{values[key]:.2f}" for key in ("held_gb", "load_gb")),
            f"{values['load_gb'] / values['held_gb']:.2f}" if values["held_gb"] else "",
            *(f"{values[key]:.2f}" for key in ("load_s", "forward_gb", "forward_s")),
        ]
        for way, values in found.items()
    ]
    print(table(header, rows))
    if options.output:
        write_json(options.output, {"machine": machine(torch.device("cpu")), "shape": options.shape, "found": found})
    faults = faults_of(found)
    for fault in faults:
        print(f"FAULT {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
