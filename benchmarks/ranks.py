"""The processes of a job: how they are started, and what each of them takes of memory and of the network.

Memory is RssAnon, sampled: what the kernel cannot drop. Pages of mapped files, which it can, do not count. Bytes sent
are the kernel's own count for each TCP socket of this process (TCP_INFO). gloo talks TCP, also among the ranks of one
machine, so all its traffic is there whichever library asked for it (DistributedDataParallel reduces in C++, where no
wrapped Python function sees it), and no other process's is, as it would be in the counters of the loopback device. NCCL
within a machine uses no sockets: nothing is counted there.
"""

import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from xlmrxl_train.parallel import World

ROOT = Path(__file__).resolve().parents[1]
INTERVAL = 0.05  # seconds between samples
_BYTES_SENT = 200  # offset of tcpi_bytes_sent in struct tcp_info, linux/tcp.h; tcpi_bytes_retrans follows


def anonymous_gb() -> float:
    """Return the anonymous memory that this process has now."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith("RssAnon"))


class Phases:
    """Seconds and peak memory of the parts of a job, in the process that runs them."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self.peak_gb: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure what runs inside: on CUDA the memory of the device, else anonymous memory."""
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        done, peak = threading.Event(), [anonymous_gb()]

        def sample() -> None:
            while not done.wait(INTERVAL):
                peak[0] = max(peak[0], anonymous_gb())

        sampler = threading.Thread(target=sample)
        sampler.start()
        began = time.perf_counter()
        try:
            yield
            if cuda:
                torch.cuda.synchronize(self.device)
        finally:
            self.seconds[name] = time.perf_counter() - began
            done.set()
            sampler.join()
        here = torch.cuda.max_memory_allocated(self.device) / 1e9 if cuda else max(peak[0], anonymous_gb())
        self.peak_gb[name] = max(here, self.peak_gb.get(name, 0.0))


def bytes_sent() -> int:
    """Return how many bytes this process has sent over the TCP sockets that it has open, repetitions not counted."""
    total = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if not entry.readlink().name.startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(entry.name))) as connection:
                info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        except OSError:  # no TCP socket, or closed meanwhile
            continue
        sent, again = struct.unpack_from("QQ", info, _BYTES_SENT)
        total += sent - again
    return total


def launch(module: str, ranks: int, job: dict[str, Any], *, limit: float) -> list[dict[str, Any]]:
    """Run `module`'s worker on so many ranks of this machine and return what each of them reported.

    Raises:
        RuntimeError: A rank failed; the end of what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.json"
        launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), "-m"] if ranks > 1 else []
        command = [sys.executable, "-m", *launcher, module, "--job", json.dumps({**job, "out": str(target)})]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=limit, check=False
        )
        if done.returncode or not target.exists():
            raise RuntimeError(f"{module} on {ranks} ranks: exit code {done.returncode}\n{done.stderr[-6000:]}")
        reports: list[dict[str, Any]] = json.loads(target.read_text(encoding="utf-8"))
        return reports


def report(world: World, job: dict[str, Any], values: dict[str, Any]) -> None:
    """Hand every rank's values to the process that launched them, and end this one."""
    gathered = world.gather(values)
    if world.is_first:
        Path(job["out"]).write_text(json.dumps(gathered), encoding="utf-8")
    world.barrier()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads abort now and then when a process ends while another still talks
