"""Everything that only a GPU can show, in under ten minutes: `make gpu` there runs this.

Rows: each attention backend against float32 eager on the CPU; the tests that need a GPU and the model's; the whole XL
in every way (benchmarks.xl_step; `--xl --only 'ours*'` for some of them); throughput, evaluation and inference against
transformers; a short run of the sample with train.profile. Without a CUDA device some of it runs small on the CPU, and
the last line says so.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import describe, machine, table, write_json
from benchmarks.workload import SHAPES, load_examples, our_batches, our_model, our_step, our_strategy, step_positions

ROOT = Path(__file__).resolve().parents[1]
ROWS = 1000  # of the embedding, for correctness


@dataclass(kw_only=True)
class Result:
    """One row of the table."""

    name: str
    passed: bool | None  # None: not run
    note: str
    seconds: float = 0.0


class Runner:
    """Runs rows in turn, and none of the slow ones when the time is up."""

    def __init__(self, minutes: float) -> None:
        self.ends = time.monotonic() + 60 * minutes
        self.results: list[Result] = []

    def run(self, name: str, action: Callable[[], str]) -> None:
        """Run one row; an exception is a failure and its first line the note."""
        began = time.monotonic()
        try:
            if began > self.ends:
                result = Result(name=name, passed=None, note="not run: the time was up")
            else:
                result = Result(name=name, passed=True, note=action())
        except SkippedError as reason:
            result = Result(name=name, passed=None, note=f"not run: {reason}")
        except Exception as error:  # any fault is this row's result
            text = str(error).strip().splitlines() or [""]
            result = Result(name=name, passed=False, note=f"{type(error).__name__}: {text[0]:.150}")
        result.seconds = time.monotonic() - began
        self.results.append(result)
        print(f"{_word(result)}  {name}  {result.note}  ({result.seconds:.0f} s)", flush=True)

    @property
    def left(self) -> float:
        """Seconds."""
        return max(1.0, self.ends - time.monotonic())

    def command(self, arguments: list[str], *, limit: float) -> str:
        """Run a command from the repository's root and return what it printed, cut short where the limit came."""
        with tempfile.TemporaryFile("w+", errors="replace") as said:
            try:
                code = subprocess.run(
                    arguments,
                    cwd=ROOT,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    timeout=min(limit, self.left),
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                code = 124
            said.seek(0)
            text = said.read()
        if code:
            print(text[-6000:], flush=True)
            raise RuntimeError(f"exit code {code}: {(text.strip().splitlines() or ['it said nothing'])[-1]}")
        return text


class SkippedError(Exception):
    """A row that cannot run here."""


def _word(result: Result) -> str:
    return {True: "ok  ", False: "FAIL", None: "-   "}[result.passed]


def backend_row(backend: str, device: torch.device, dropout: float) -> str:
    """Compare one optimizer step's gradients in bf16 with float32 eager on the CPU (dropout 0), or just train."""
    examples, _ = load_examples(None, ROWS)
    batches = our_batches(examples, step_positions(examples, 16, 0), 1 << 20)
    torch.manual_seed(0)
    model = our_model(SHAPES["tiny"], ROWS, dropout, backend=backend)
    if dropout:
        strategy = our_strategy(model, device)
        losses = [our_step(strategy, batches) for _ in range(3)]
        assert all(loss == loss and loss < 10 for loss in losses), losses
        return f"losses {', '.join(f'{loss:.4f}' for loss in losses)}"
    reference = our_model(SHAPES["tiny"], ROWS, 0.0, backend="eager")
    reference.load_state_dict(model.state_dict())
    gradients = []
    for module, place, precision in ((model, device, "bf16"), (reference, torch.device("cpu"), "fp32")):
        strategy = our_strategy(module, place, precision=precision)
        scale = torch.tensor(1.0 / 16, device=place)
        for batch in batches:
            strategy.accumulate(batch.to(place).inputs, scale, last=True)
        gradients.append(torch.cat([p.grad.flatten().cpu() for p in module.parameters() if p.grad is not None]))
    difference = float((gradients[0] - gradients[1]).norm() / gradients[1].norm())
    assert difference < 0.03, f"gradients differ by {difference:.1%} of their norm from float32 eager, allowed 3 %"
    return f"gradients within {difference:.2%} of float32 eager"


def tests_row(runner: Runner, *folders: str) -> str:
    """Run tests of ours, some at a time; those that need a GPU run where there is one."""
    if importlib.util.find_spec("pytest") is None:
        raise SkippedError("pytest is not installed")
    many = ["-n", "8"] if importlib.util.find_spec("xdist") and torch.cuda.is_available() else []
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-v",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:benchmark",
        *many,
        *folders,
        "-m",
        "not slow",
    ]
    return runner.command([*command, "-rfE", "--tb=line", "--durations=8"], limit=200).strip().splitlines()[-1]


def sample_row(runner: Runner, steps: int) -> str:
    """Train on the packaged sample through the command line, with a profile."""
    missing = [name for name in ("hydra", "datasets", "evaluate") if importlib.util.find_spec(name) is None]
    if missing:
        raise SkippedError(f"{', '.join(missing)} missing; carry wheels (make gpu-wheels)")
    with tempfile.TemporaryDirectory() as folder:
        overrides = ["recipe=demo", "model.path=null", "train.profile=true", "evaluate.every=0", "evaluate.test=false"]
        places = [f"train.max_steps={steps}", f"run.dir={folder}/run", f"data.cache={folder}/cache"]
        runner.command([sys.executable, "-m", "xlmrxl_train", *overrides, *places], limit=120)
        lines = (Path(folder) / "run" / "profile" / "summary.md").read_text(encoding="utf-8").splitlines()
    return " ".join(line for line in lines[2:] if line and not line.startswith(("|", "Operations")))


def throughput_row(runner: Runner, options: list[str], limit: float) -> str:
    """Run benchmarks.throughput in a process of its own, print its table, and return the rates."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.json"
        command = [sys.executable, "-m", "benchmarks.throughput", "--no-memory", "--json", str(target), *options]
        print(runner.command(command, limit=limit), flush=True)
        values: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
    parts = []
    for name, row in values["rows"].items():
        rates = sorted(row["tokens_per_second"])
        parts.append(f"{name}: {rates[len(rates) // 2]:,.0f} tokens/s, {row['share_of_peak']:.0%} of peak")
    return "; ".join(parts)


def main(arguments: list[str] | None = None) -> int:
    """Run every row; return 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=9.0, help="no row begins after this time")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="*", default=[""], help="rows whose names contain one of these")
    parser.add_argument("--data", type=Path, help="folder with nli/ and tokenizer/xlmr; without: what is packaged")
    parser.add_argument("--output", type=Path, default=Path("runs/gpu"), help="folder for the files of longer rows")
    parser.add_argument("--xl", nargs=argparse.REMAINDER, default=[], help="options of benchmarks.xl_step, at the end")
    options = parser.parse_args(arguments)
    options.output = options.output.resolve()
    options.output.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(describe(machine(device)), flush=True)
    runner = Runner(options.minutes)
    for name, action in rows(runner, device, options):
        if any(word in name for word in options.only):
            runner.run(name, action)
    lines = [[_word(result).strip(), result.name, result.note, f"{result.seconds:.0f}"] for result in runner.results]
    print("\n" + table(["", "what", "result", "s"], lines))
    if options.json:
        write_json(options.json, {"machine": machine(device), "rows": lines})
    failed = [result.name for result in runner.results if result.passed is False]
    print(f"\n{len(failed)} failed: {', '.join(failed)}" if failed else "\nnothing failed")
    if device.type != "cuda":
        print("no CUDA device found; ran the CPU part only")
    return 1 if failed else 0


def xl_row(runner: Runner, options: argparse.Namespace, here: list[str]) -> str:
    """Run benchmarks.xl_step in a process of its own and print its table."""
    places = [
        f"--{name}={options.output / file}" for name, file in (("json", "xl.json"), ("profile", "xl_profile.txt"))
    ]
    minutes = max(0.5, runner.left / 60 - 1)
    command = [sys.executable, "-m", "benchmarks.xl_step", *here, *places, "--minutes", f"{minutes:.1f}", *options.xl]
    print(runner.command(command, limit=runner.left), flush=True)
    values: dict[str, Any] = json.loads((options.output / "xl.json").read_text(encoding="utf-8"))
    assert not values["failed"], "; ".join(f"{name}: {reason}" for name, reason in values["failed"].items())
    return f"{len(values['found'])} ways"


def rows(
    runner: Runner, device: torch.device, options: argparse.Namespace
) -> list[tuple[str, Callable[[], str]]]:  # fmt: skip
    """Return every row's name and action."""
    cuda = device.type == "cuda"
    backends = ["grouped", "sdpa", "eager", *(["varlen"] if cuda else [])]
    found: list[tuple[str, Callable[[], str]]] = [
        (f"attention {name}, {device.type}, bf16", lambda name=name: backend_row(name, device, 0.0))
        for name in backends
    ]
    found += [
        (f"attention {name}, {device.type}, bf16, dropout 0.1", lambda name=name: backend_row(name, device, 0.1))
        for name in ("auto", "grouped", "sdpa")
    ]
    if not cuda:
        small = ["--shape", "tiny", "--vocab", str(ROWS), "--steps", "4", "--warm-up", "1", "--device", "cpu"]
        return [
            *found,
            ("both models compute the same", lambda: throughput_check(runner, small)),
            ("throughput tiny", lambda: throughput_row(runner, small, 200)),
            ("sample run", lambda: sample_row(runner, 8)),
        ]
    here = ["--data", str(options.data)] if options.data else []
    bench = [sys.executable, "-m"]
    return [
        *found,
        ("tests", lambda: tests_row(runner, "tests/gpu", "tests/model", "tests/inference/test_loading.py")),
        ("both models compute the same", lambda: throughput_check(runner, here)),
        ("XL", lambda: xl_row(runner, options, here)),
        ("throughput 8x512", lambda: throughput_row(runner, [*here, "--vocab", "real", "--steps", "20"], 120)),
        ("evaluation", lambda: printed(runner, [*bench, "benchmarks.evaluation", *here, *EVALUATION], 120)),
        ("inference", lambda: printed(runner, [*bench, "benchmarks.inference", *here, *INFERENCE], 120)),
        ("sample run", lambda: sample_row(runner, 30)),
    ]


EVALUATION = ["--languages", "en,de,zh,sw", "--limit", "2000", "--tokens-per-batch", "16384", "--batch-sizes", "64,256"]
INFERENCE = ["--task", "text-classification", "--limit", "2048", "--tokens-per-batch", "16384"]


def printed(runner: Runner, command: list[str], limit: float) -> str:
    """Run a benchmark, print what it prints, and return its last line."""
    said = runner.command(command, limit=limit).strip()
    print(said, flush=True)
    return said.splitlines()[-1]


def throughput_check(runner: Runner, options: list[str]) -> str:
    """Run benchmarks.throughput --check."""
    command = [sys.executable, "-m", "benchmarks.throughput", "--check", *options]
    return runner.command(command, limit=120).strip().splitlines()[-1]


if __name__ == "__main__":
    sys.exit(main())
