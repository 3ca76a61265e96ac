"""Start a worker on several ranks as people do, and never leave one of them behind."""

import os
import subprocess
import sys
from pathlib import Path


def torchrun(worker: Path, *words: str, ranks: int = 2, seconds: float = 240) -> "subprocess.CompletedProcess[str]":
    """Run a worker to its end; with one rank, without a launcher.

    Raises:
        subprocess.TimeoutExpired: It took longer than `seconds`. The launcher was asked to end its ranks: without it
            they would go on, and hold the pipes that a test reads to their end.
    """
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    command = [sys.executable, *launcher, str(worker), *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.communicate(timeout=60)  # the launcher itself waits 30 seconds before it kills
        raise
    return subprocess.CompletedProcess(command, process.returncode, *said)
