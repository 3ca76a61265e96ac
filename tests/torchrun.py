"""Start a worker on several ranks, as people do or quickly, and never leave one of them behind."""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch.distributed as dist

REPOSITORY = Path(__file__).resolve().parents[1]
# What takes seconds to import, also when an optimizer is made, and when DeepSpeed looks at one.
_IMPORTED = [
    "torch._dynamo", "xlmrxl_train.run", "xlmrxl_train.parallel.ddp", "xlmrxl_train.parallel.fsdp2",
    "deepspeed.runtime.zero.muon.muon_optimizer",
]  # fmt: skip
_forkserver = multiprocessing.get_context("forkserver")


def torchrun(
    worker: Path, *words: str, ranks: int = 2, seconds: float = 240, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run a worker to its end; with one rank, without a launcher; `environment` is added to this process's.

    Raises:
        subprocess.TimeoutExpired: It took longer than `seconds`. The launcher was asked to end its ranks: without it
            they would go on, and hold the pipes that a test reads to their end.
    """
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    command = [sys.executable, *launcher, str(worker), *words]
    process = subprocess.Popen(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.communicate(timeout=60)  # the launcher itself waits 30 seconds before it kills
        raise
    return subprocess.CompletedProcess(command, process.returncode, *said)


def forked(
    worker: Path, *words: str, ranks: int = 2, seconds: float = 240, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Do the same without torchrun and without waiting for imports: for tests of what ranks compute.

    The ranks are copies of a process that has imported everything and done nothing. They end without Python's last
    rites (`atexit`), and what one of them lacks the others wait for.

    Raises:
        subprocess.TimeoutExpired: It took longer than `seconds`; all ranks were killed.
    """
    variables = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)} | environment
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    if ranks > 1:
        size = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "TORCHELASTIC_USE_AGENT_STORE": "True"}
        variables |= size | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    _start_server(variables)
    with tempfile.TemporaryDirectory() as name:
        files = [(Path(name) / f"{rank}.out", Path(name) / f"{rank}.err") for rank in range(ranks)]
        processes = []
        for rank, said in enumerate(files):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if ranks > 1 else {}
            process = _forkserver.Process(target=_rank, args=(str(worker), words, variables | own, said))
            process.start()
            processes.append(process)
        end = time.monotonic() + seconds
        for process in processes:
            process.join(max(0.0, end - time.monotonic()))
        late = [process for process in processes if process.is_alive()]
        for process in late:
            process.kill()
            process.join()
        out, err = ("".join(part.read_text() for part in parts if part.exists()) for parts in zip(*files, strict=True))
    command = [str(worker), *words]
    if late:
        raise subprocess.TimeoutExpired(command, seconds, out, err)
    code = max((abs(process.exitcode or 0) for process in processes), default=0)
    return subprocess.CompletedProcess(command, code, out, err)


def _start_server(variables: dict[str, str]) -> None:
    """Start the process that ranks are copies of, unless there is one; it imports with these variables."""
    from multiprocessing import forkserver

    before = dict(os.environ)
    os.environ.update(variables)
    try:
        _forkserver.set_forkserver_preload(_IMPORTED)
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)


def _rank(worker: str, words: tuple[str, ...], variables: dict[str, str], said: tuple[Path, Path]) -> None:
    """Be a rank: this runs in a process of its own."""
    for number, path in zip((1, 2), said, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = [worker, *words]
    sys.path.insert(0, str(Path(worker).parent))
    runpy.run_path(worker, run_name="__main__")
