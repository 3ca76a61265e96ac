"""From a checkpoint as large as XLM-R XL to a training step and back to the Hub's layout, on a few ranks.

    python -m benchmarks.startup                               # 36 layers x 2560, 7 GB of bf16; 2 ranks; 35 GB of disk
    python -m benchmarks.startup --shape 4x512 --rows 25088    # the same, small

A file of random bf16 weights in the Hub's layout is read by every rank as in training, under each strategy; all but the
last layer and the head are frozen, and the run has precision=bf16. Then come one forward, backward and optimizer step,
a checkpoint, and the export of that. Required: while the weights are read, no rank's anonymous memory exceeds half the
file and 2 GB (with 2 ranks); every rank reads its own bytes only; frozen weights come out as they went in.
"""

import argparse
import hashlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import describe, machine, table, write_json
from benchmarks.ranks import Phases, anonymous_gb, launch, report
from benchmarks.workload import SHAPES, Examples, Ids, classification, our_batches
from xlmrxl_train.config import VARIANTS, Config
from xlmrxl_train.model import XLMRobertaXLConfig, XLMRobertaXLForMaskedLM, XLMRobertaXLLayer
from xlmrxl_train.model.weights import CheckpointReader, open_checkpoint
from xlmrxl_train.model.writing import DEFAULT_SHARD_BYTES, TensorEntry, write_checkpoint
from xlmrxl_train.parallel import Blueprint, World, make_strategy
from xlmrxl_train.parallel.tensor_files import save_tensors
from xlmrxl_train.session import build_model
from xlmrxl_train.training.checkpoint import TENSORS
from xlmrxl_train.training.export import weights_in
from xlmrxl_train.training.optimizer import OptimizerPlan

XL_ROWS = 250_880
PIECE = 1 << 24  # elements at a time
SPARE_GB = 2.0  # for a rank beside its share of the file
PHASES = ("load", "forward and backward", "optimizer", "save", "export")


def make_checkpoint(folder: Path, shape: str, rows: int, device: str = "cpu") -> None:
    """Write random weights as the Hub has them: a masked language model in bf16, one tensor in memory at a time.

    Args:
        folder: Where.
        shape: A name from SHAPES.
        rows: Of the embedding.
        device: Which draws the numbers: a GPU is faster, and draws others.
    """
    config = XLMRobertaXLConfig(**(SHAPES[shape].options(rows, 0.1) | {"num_labels": 2}))
    with torch.device("meta"):
        model = XLMRobertaXLForMaskedLM(config)

    def drawn(name: str, parameter: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator(device).manual_seed(len(name) * parameter.numel())
        mean = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
        tensor = torch.empty(parameter.shape, dtype=torch.bfloat16)
        for piece in tensor.view(-1).split(PIECE):
            numbers = torch.randn(piece.numel(), generator=generator, device=device)
            piece.copy_(numbers.mul_(0.02).add_(mean).bfloat16())
        return tensor

    entries = [
        TensorEntry(
            name=name,
            dtype=torch.bfloat16,
            shape=tuple(parameter.shape),
            read=lambda name=name, parameter=parameter: drawn(name, parameter),
        )
        for name, parameter in model.named_parameters()
    ]
    values = config.to_dict(type(model).__name__) | {"dtype": "bfloat16"}
    write_checkpoint(folder, values, entries, DEFAULT_SHARD_BYTES * 2)


class CountingReader:
    """A reader that counts the bytes of the file that it hands out."""

    def __init__(self, reader: CheckpointReader) -> None:
        self.reader = reader
        self.shapes = reader.shapes
        self.num_bytes = 0

    def read(self, name: str) -> torch.Tensor:
        """Return a tensor."""
        tensor = self.reader.read(name)
        self.num_bytes += tensor.nbytes
        return tensor

    def read_part(self, name: str, start: int, count: int) -> torch.Tensor:
        """Return some elements."""
        part = self.reader.read_part(name, start, count)
        self.num_bytes += part.nbytes
        return part

    def file_of(self, name: str) -> Path:
        """Return the file that holds the tensor."""
        return self.reader.file_of(name)


def work(job: dict[str, Any]) -> None:
    """Load, train one step, save and export on one rank."""
    config = Config()
    config.strategy = VARIANTS["strategy"][job["strategy"]](device=job["device"])
    config.model.path, config.train.precision = job["source"], "bf16"
    world = World.open(config.strategy)
    folder, phases = Path(job["folder"]), Phases(world.device)
    started = anonymous_gb()
    with phases.phase("load"):
        task = classification(Ids(job["rows"]))
        model, source = build_model(config, task, task.tokenizer)
        for name, parameter in model.named_parameters():
            trained = (f"roberta.encoder.layer.{model.config.num_hidden_layers - 1}.", "classifier.")
            parameter.requires_grad_(name.startswith(trained))
        assert source.reader is not None
        source.reader = reader = CountingReader(source.reader)
        blueprint = Blueprint(
            model=model,
            block=XLMRobertaXLLayer,
            source=source,
            make_optimizer=OptimizerPlan(config.optimizer, model).build,
        )
        strategy = make_strategy(config, world, blueprint)
    loaded = anonymous_gb()
    with phases.phase("forward and backward"):
        ids = [[0, *range(10 + world.rank, 24 + world.rank), 2], [0, *range(30 + world.rank, 44 + world.rank), 2]]
        [batch] = our_batches(Examples(ids=ids, labels=[0, 1]), [0, 1], 1 << 20)
        scale = torch.tensor(0.5, device=world.device)  # 2 targets on each rank
        loss = strategy.accumulate(batch.to(world.device).inputs, scale, last=True)
    with phases.phase("optimizer"):
        result = strategy.step(1e-3)
    assert not result.skipped and not result.unchanged
    with phases.phase("save"):
        save_tensors(folder / TENSORS, strategy.state_dict(), world)
    with phases.phase("export"):
        if world.is_first:
            model.write_pretrained(folder / "model", weights_in(folder))
        world.barrier()
    report(world, job, {
        "bytes_read": reader.num_bytes, "started_gb": started, "loaded_gb": loaded, "peak_gb": phases.peak_gb,
        "seconds": phases.seconds, "loss": float(loss) / 2, "trained": sorted(strategy.trainable),
    })  # fmt: skip


def compare(source: Path, exported: Path, trained: list[str]) -> dict[str, Any]:
    """Compare SHA-256 of every tensor's bf16 bytes; an exported one must hold nothing that bf16 does not."""
    before, after = open_checkpoint(source), open_checkpoint(exported)
    found: dict[str, Any] = {"frozen": 0, "frozen_equal": 0, "trained": 0, "trained_differ": 0, "wrong": []}
    for name in after.shapes:
        if name not in before.shapes:  # the new head
            continue
        equal = _digest(before, name) == _digest(after, name)
        kind, good = ("trained", not equal) if name in trained else ("frozen", equal)
        found[kind] += 1
        found["trained_differ" if name in trained else "frozen_equal"] += good
        if not good:
            found["wrong"].append(name)
    return found


def _digest(reader: CheckpointReader, name: str) -> str:
    sha256 = hashlib.sha256()
    for piece in _pieces(reader, name):
        rounded = piece.bfloat16()
        if not torch.equal(rounded.to(piece.dtype), piece):
            return "no bf16"
        sha256.update(rounded.view(torch.uint8).numpy().data)
    return sha256.hexdigest()


def _pieces(reader: CheckpointReader, name: str) -> Iterator[torch.Tensor]:
    numel = torch.Size(reader.shapes[name]).numel()
    for start in range(0, numel, PIECE):
        yield reader.read_part(name, start, min(PIECE, numel - start))


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Make the file, then go through each strategy; folders are removed as soon as they were looked at."""
    source = folder / "source"
    make_checkpoint(source, options.shape, options.rows)
    stored = sum(path.stat().st_size for path in source.glob("*.safetensors"))
    print(f"{stored / 1e9:.2f} GB in {source}", flush=True)
    found: dict[str, Any] = {"file_bytes": stored, "limit_gb": stored / options.ranks / 1e9 + SPARE_GB}
    for strategy in options.strategies:
        place = folder / strategy
        place.mkdir()
        job = {"strategy": strategy, "source": str(source), "folder": str(place), "rows": options.rows,
               "device": options.device}  # fmt: skip
        ranks = launch("benchmarks.startup", options.ranks, job, limit=options.minutes * 60)
        checkpoint = sum(path.stat().st_size for path in (place / TENSORS).iterdir())
        shutil.rmtree(place / TENSORS)
        found[strategy] = {
            "ranks": ranks,
            "checkpoint_bytes": checkpoint,
            "compared": compare(source, place / "model", ranks[0].pop("trained")),
        }
        shutil.rmtree(place)
        print(f"{strategy}: {found[strategy]['compared']}", *rows_of(found, [strategy]), sep="\n", flush=True)
    return found


def rows_of(found: dict[str, Any], strategies: list[str]) -> list[list[str]]:
    """Return one line per strategy and rank."""
    rows = []
    for strategy in strategies:
        for rank, values in enumerate(found[strategy]["ranks"]):
            peak, seconds = values["peak_gb"], values["seconds"]
            rows.append([
                strategy, str(rank), f"{values['bytes_read'] / 1e9:.3f}", f"{values['started_gb']:.2f}",
                f"{values['loaded_gb']:.2f}",
                *(f"{peak[phase]:.2f} ({seconds[phase]:.0f} s)" for phase in PHASES),
            ])  # fmt: skip
    return rows


def faults_of(found: dict[str, Any], strategies: list[str]) -> list[str]:
    """Return what is not as required."""
    faults = []
    for strategy in strategies:
        ranks, compared = found[strategy]["ranks"], found[strategy]["compared"]
        faults += [
            f"{strategy}, rank {rank}: {values['peak_gb']['load']:.2f} GB while loading"
            for rank, values in enumerate(ranks)
            if values["peak_gb"]["load"] > found["limit_gb"]
        ]
        if sum(values["bytes_read"] for values in ranks) > found["file_bytes"]:
            faults.append(f"{strategy}: the ranks together read more than the file")
        if compared["wrong"]:
            faults.append(f"{strategy}: {', '.join(compared['wrong'][:5])}")
    return faults


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return 1 where something is not as required."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__.split("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="XL")
    parser.add_argument("--rows", type=int, default=XL_ROWS, help="of the embedding")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--strategies", nargs="*", choices=VARIANTS["strategy"], default=["zero3", "fsdp2"])
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto; on cuda memory is the device's")
    parser.add_argument("--folder", type=Path, help="where there is room; default: the temporary folder")
    parser.add_argument("--minutes", type=float, default=20.0, help="allowed per strategy")
    parser.add_argument("--json", type=Path, help="write the results here too")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # as in every rank
    before = machine(torch.device("cpu"))
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = run(options, Path(folder))
    header = ["strategy", "rank", "GB read", "GB at start", "GB loaded", *(f"peak GB, {phase}" for phase in PHASES)]
    print(f"\n{options.shape}, {options.rows:,} rows, {options.ranks} ranks\n{describe(before)}\n")
    print(table(header, rows_of(found, options.strategies)))
    faults = faults_of(found, options.strategies)
    print("\n" + ("\n".join(faults) or f"all as required; limit while loading {found['limit_gb']:.2f} GB"))
    if options.json:
        write_json(options.json, {"machine": before, "faults": faults, **found})
    return 1 if faults else 0


if __name__ == "__main__":
    if "--job" in sys.argv:
        import json

        work(json.loads(sys.argv[sys.argv.index("--job") + 1]))
    else:
        sys.exit(main())
