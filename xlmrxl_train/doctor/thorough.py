"""Checks that load torch, touch disks and the network, and speak with the other ranks."""

import os
import shutil
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import torch
from torch.utils import cpp_extension

from xlmrxl_train.config import Config, DataConfig, Zero3NvmeConfig, ZeroConfig
from xlmrxl_train.data.cache_folder import cache_folder
from xlmrxl_train.data.sources import open_source
from xlmrxl_train.doctor.finding import Finding, existing, good, look, red, writable
from xlmrxl_train.errors import UserError
from xlmrxl_train.forecast import plan as plan_run
from xlmrxl_train.hub import why_unreachable
from xlmrxl_train.parallel import World
from xlmrxl_train.parallel.matrix_peak import matrix_peak
from xlmrxl_train.parallel.zero_needs import can_build_aio
from xlmrxl_train.plan.checking import check_memory
from xlmrxl_train.session import build_model, open_tokenizer
from xlmrxl_train.spelling import gigabytes
from xlmrxl_train.tasks import make_task

T = TypeVar("T")

PIECE = 8 << 20  # bytes written at a time
WRITTEN = 8 * PIECE  # bytes of the file with which a disk is timed
EXCHANGED = 64 << 20  # bytes that ranks add up
SLOW_DISK = 0.1  # gigabytes per second; a checkpoint of XL then takes seven minutes
TEXTS = ("It rains.", "Ça pleut à Genève.", "Идёт дождь.", "यह बारिश है।", "下雨了。", "إنها تمطر.", "ฝนตก", "Βρέχει.")


def thorough(config: Config | None, world: World) -> Iterator[Finding]:
    """Yield what every rank sees on its own."""
    yield _torch(world)
    yield _compiler(config)
    for name, folder in _disks(config).items():
        yield _disk_speed(name, folder)


def of_all_ranks(config: Config | None, world: World) -> Iterator[Finding]:
    """Yield what is one thing for all ranks; each of them must call it."""
    yield _ranks(world)
    found: list[Finding] = []
    if world.is_first:
        found.append(_cache(config))
        found.append(_hub())
        if config:
            found += _run(config, world)
    yield from found


def _torch(world: World) -> Finding:
    if world.device.type == "cpu":
        speed = matrix_peak(torch.float32, world.device) / 1e12
        text = f"{torch.__version__}, no GPU; {torch.get_num_threads()} threads, {speed:.2f} TFLOP/s in float32"
        return good("torch", text)
    properties = torch.cuda.get_device_properties(world.device)
    speed = matrix_peak(torch.bfloat16, world.device) / 1e12
    nccl = ".".join(map(str, torch.cuda.nccl.version()))
    count = torch.cuda.device_count()
    text = (
        f"{torch.__version__}, CUDA {torch.version.cuda}, NCCL {nccl}; {count} x {properties.name}, "
        f"{properties.total_memory / 1e9:.0f} GB, {speed:.0f} TFLOP/s in bfloat16"
    )
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        return look("torch", f"{text}, without bfloat16", "Set train.precision=fp32, or take a later GPU.")
    return good("torch", text)


def _compiler(config: Config | None) -> Finding:
    """Look for what DeepSpeed builds its operations with; building one takes minutes."""
    strategy = config.strategy if config else None
    compiler = next((name for name in ("g++", "c++", "clang++") if shutil.which(name)), None)
    lacking = [] if compiler else ["a C++ compiler"]
    lacking += [] if find_spec("ninja") or shutil.which("ninja") else ["ninja"]
    if torch.cuda.is_available() and cpp_extension.CUDA_HOME is None:
        lacking.append("CUDA's toolkit ($CUDA_HOME)")
    if isinstance(strategy, Zero3NvmeConfig):
        lacking += [] if can_build_aio() else ["libaio-dev"]
    built = Path(os.environ.get("TORCH_EXTENSIONS_DIR", "~/.cache/torch_extensions")).expanduser()
    names = sorted({path.parent.name for path in built.glob("**/*.so")} if built.is_dir() else [])
    found = f"{compiler or 'no compiler'}; built already: {', '.join(names) or 'none'}"
    if not lacking:
        return good("DeepSpeed's operations", found)
    remedy = f"Install {', '.join(lacking)}, or use strategy=fsdp2, which builds nothing."
    needed = isinstance(strategy, Zero3NvmeConfig)
    wanted = isinstance(strategy, ZeroConfig) or strategy is None
    if needed:
        return red("DeepSpeed's operations", found, remedy)
    return look("DeepSpeed's operations", found, remedy) if wanted else good("DeepSpeed's operations", found)


def _disks(config: Config | None) -> dict[str, Path]:
    folders = {"run.dir": Path(config.run.dir if config else "runs")}
    if config and isinstance(config.strategy, Zero3NvmeConfig) and config.strategy.nvme_path:
        folders["strategy.nvme_path"] = Path(config.strategy.nvme_path)
    return folders


def _disk_speed(key: str, folder: Path) -> Finding:
    """Write and read a file where checkpoints will lie; what it reads may come from memory, so that is not timed."""
    name, place = f"speed of {key}", existing(folder)
    if not writable(place):
        return red(name, f"{place} cannot be written", f"Mend its permissions, or choose another {key}.")
    piece = os.urandom(PIECE)
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            began = time.perf_counter()
            for _ in range(WRITTEN // PIECE):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
            speed = WRITTEN / (time.perf_counter() - began) / 1e9
            file.seek(WRITTEN - PIECE)
            whole = file.read() == piece
    except OSError as error:
        return red(name, f"{place}: {error.strerror or error}", f"Free space, or choose another {key}.")
    if not whole:
        return red(name, f"{place} gives back other bytes than were written", f"Choose another {key}.")
    found = f"{place}: {speed:.2f} GB/s written"
    return good(name, found) if speed >= SLOW_DISK else look(name, found, "A checkpoint of XL has 42 GB.")


def _ranks(world: World) -> Finding:
    if world.size == 1:
        start = "torchrun --nproc-per-node 8 -m xlmrxl_train doctor"
        return good("ranks", f"one process; bandwidth between ranks is measured by {start}")
    values = torch.ones(EXCHANGED // 4, device=world.device)
    world.sum(values)  # connects
    seconds = []
    for _ in range(3):
        world.barrier()
        began = time.perf_counter()
        world.sum(values)
        float(values[0])  # waits for a GPU
        seconds.append(time.perf_counter() - began)
    # Each byte goes out and comes in 2 (n - 1) / n times, whatever the algorithm: what NCCL's tests call bus bandwidth.
    speed = 2 * (world.size - 1) / world.size * EXCHANGED / min(seconds) / 1e9
    if not torch.all(values == world.size**4):
        return red("ranks", f"{world.size} ranks add up wrong numbers", "Look at NCCL_DEBUG=INFO and at the cables.")
    return good("ranks", f"{world.size} reach each other, {speed:.2f} GB/s ({world.device.type})")


def _cache(config: Config | None) -> Finding:
    folder = cache_folder(config.data if config else DataConfig())
    tables = list(folder.glob("*.arrow"))
    size = sum(table.stat().st_size for table in tables) / 1e9
    return good("tokenised data", f"{folder}: {len(tables)} tables, {size:.2f} GB")


def _hub() -> Finding:
    why = why_unreachable()
    if why is None:
        return good("Hub", "reachable")
    return look(
        "Hub", why, "What is there already can be used; fetch the rest where there is a network: xlmrxl prepare."
    )


def _run(config: Config, world: World) -> Iterator[Finding]:
    """Yield what a run of this configuration would meet first; each of these needs the one before it."""
    finding, tokenizer = _tried("tokenizer", lambda: open_tokenizer(config))
    if tokenizer is None:
        yield finding
        return
    wrong = [text for text in TEXTS if not _survives(text, tokenizer.decode(tokenizer.encode(text), True))]
    found = f"{len(tokenizer):,} tokens, fingerprint {tokenizer.fingerprint[:12]}"
    if wrong:
        yield look("tokenizer", f"{found}; it does not give back {', '.join(wrong)}", "Is it one for these languages?")
    else:
        yield good("tokenizer", f"{found}; gives back {len(TEXTS)} sentences in 8 scripts")
    finding, source = _tried("data", lambda: open_source(config.dataset, config.data))
    if source is None:
        yield finding
        return
    held = {
        split: [code for code in config.dataset.languages if source.has(split, code)]
        for split in ("train", "validation", "test")
    }
    text = ", ".join(f"{split} in {len(codes)} languages" for split, codes in held.items())
    yield good("data", f"{config.dataset.name} ({source.kind}): {text}")
    yield plan(config, world)


def plan(config: Config, world: World) -> Finding:
    """Return whether the model, and what training adds to it, fits into memory, without running it."""
    try:
        task = make_task(config.task, config.dataset, tokenizer := open_tokenizer(config))
        model, _ = build_model(config, task, tokenizer)
        check_memory(world, config, model, training=False)
        if not task.trains:
            return good("plan", "the weights fit")
        made = plan_run(config)
    except UserError as error:
        return _fault("plan", error)
    found = f"{gigabytes(made.training)} per rank of {gigabytes(made.usable)}, on {made.hardware}"
    if made.fits:
        return good("plan", f"fits: {found}")
    advice = f"Set {' '.join(made.remedy)}." if made.remedy else "Choose a smaller model or a larger machine."
    return look("plan", f"does not fit: {found}", f"{advice} `xlmrxl plan` shows what takes it.")


def _tried(name: str, action: Callable[[], T]) -> tuple[Finding, T | None]:
    try:
        return good(name, ""), action()
    except UserError as error:
        return _fault(name, error), None


def _fault(name: str, error: UserError) -> Finding:
    """Take a message apart: what is wrong, and in its last sentence what to do."""
    text = str(error).partition("\n")[0]
    found, _, remedy = text.rstrip(".").rpartition(". ")
    return red(name, found or text, f"{remedy}.")


def _survives(text: str, back: str) -> bool:
    return unicodedata.normalize("NFKC", text) == back.strip()
