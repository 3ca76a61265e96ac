"""torchrun for xlmrxl_train: it stops without losing a step, and its exit code tells a scheduler what to do next.

python launch/torchrun.py [torchrun's options] -- recipe=<name> key=value ...

0 finished, 1 failed, 2 a user's mistake, 75 stopped on purpose with work left, 130 a second Ctrl-C.

Told to stop, torchrun kills its ranks after 30 seconds and reports a failure, while other machines report success. So
signals go to the ranks instead: they agree on a step, save and end well, and torchrun ends well on every machine. That
is why it runs in a thread here: there it leaves signals alone.
"""

import argparse
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread

import psutil
import torch
import yaml
from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing import api as elastic
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

FINISHED, FAILED, MISTAKE, STOPPED, INTERRUPTED = 0, 1, 2, 75, 130  # 75: EX_TEMPFAIL of sysexits.h, "try again later"
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
KILLED = (-signal.SIGTERM, -signal.SIGUSR1, -signal.SIGKILL)  # exit codes of ranks that did not listen yet
PATIENCE = 5.0  # seconds after a signal without any rank, until waiting for other machines is given up
STUCK = 90.0  # seconds for which torchrun does not notice that a rank has ended, when the network to others is cut
SHOWN_LINES = 12  # of the output of a rank that failed


def main() -> int:
    """Run torchrun and return the exit code of the whole."""
    if "--" not in sys.argv:
        say("usage: python launch/torchrun.py [torchrun's options] -- recipe=<name> key=value ...")
        return MISTAKE
    signals: list[signal.Signals] = []
    for number in STOP_SIGNALS:
        signal.signal(number, lambda number, frame: signals.append(signal.Signals(number)))
    split = sys.argv.index("--")
    options, words = sys.argv[1:split], sys.argv[split + 1 :]
    composing = [sys.executable, "-m", "xlmrxl_train", *words, "--cfg", "job"]
    composed = subprocess.run(composing, stdout=subprocess.PIPE, text=True, check=False)
    if composed.returncode != 0:  # it said why; no rank needs to be started for that
        return composed.returncode
    folder = Path(yaml.safe_load(composed.stdout)["run"]["dir"])
    if not is_ready(words):
        return MISTAKE
    code = Job(arguments(options, words, folder), signals).run()
    trains = words[0] not in ("evaluate", "prepare")
    return STOPPED if code == FINISHED and trains and (folder / "stopped.json").is_file() else code


def is_ready(words: list[str]) -> bool:
    """Ask `xlmrxl doctor`, for what takes no time, whether this machine can run; say what it says where it cannot."""
    meant = [] if words[0] in ("evaluate", "prepare") else words[words[0] == "train" :]
    asking = [sys.executable, "-m", "xlmrxl_train", "doctor", *meant, "--quick"]
    asked = subprocess.run(asking, stdout=subprocess.PIPE, text=True, check=False)
    ready = not any(line.startswith("red ") for line in asked.stdout.splitlines())
    if not ready:
        say(asked.stdout.rstrip(), "error: this machine is not ready, as the lines that begin with red say.")
    return ready


def arguments(options: list[str], words: list[str], folder: Path) -> argparse.Namespace:
    """Return torchrun's arguments: one rank per GPU, and all but the first one write to files in the run's folder."""
    os.environ.setdefault("PET_NPROC_PER_NODE", str(max(1, torch.cuda.device_count())))  # the option's default
    parsed = torchrun.get_args_parser().parse_args([*options, "--module", "xlmrxl_train", *words])
    if ":" in parsed.nnodes:
        # Else the machine with rank 0 keeps its store for all rounds and tells nobody where it is in a later one: a
        # machine that joins waits for that in vain, and takes the job down with it (torch 2.13).
        os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    ranks = torchrun.determine_local_world_size(parsed.nproc_per_node)
    parsed.log_dir = parsed.log_dir or str(folder / "logs" / socket.gethostname())
    parsed.redirects = ",".join(f"{rank}:3" for rank in range(1, ranks)) or "0"
    return parsed


class Job:
    """torchrun in a thread, and the signals that this process got so far."""

    def __init__(self, options: argparse.Namespace, signals: list[signal.Signals]) -> None:
        self.options = options
        self.signals = signals
        self.told: set[int] = set()  # processes that were asked to stop
        self.code = FAILED

    def run(self) -> int:
        """Run to the end and return the exit code, as far as torchrun knows it."""
        thread = Thread(target=self._torchrun, daemon=True)
        thread.start()
        no_ranks, unnoticed = Since(), Since()
        while thread.is_alive():
            thread.join(0.2)
            ranks = psutil.Process().children()
            if self.signals.count(signal.SIGINT) > 1:
                kill(ranks)
                return INTERRUPTED
            if self.signals:
                self._tell(ranks)
            if no_ranks.seconds(bool(self.signals) and not ranks and not self.told) > PATIENCE:
                say(f"{self.signals[0].name}: stopped before any rank was started")
                return STOPPED
            if unnoticed.seconds(any(has_ended(rank) for rank in ranks)) > STUCK:
                say("error: the machine where all ranks meet does not answer any more. Start all machines again.")
                kill(ranks)
                return FAILED
        return self.code

    def _tell(self, ranks: list[psutil.Process]) -> None:
        """Ask each rank once to save and stop."""
        for rank in ranks:
            if rank.pid not in self.told:
                self.told.add(rank.pid)
                with suppress(psutil.NoSuchProcess):
                    rank.send_signal(signal.SIGTERM)

    def _torchrun(self) -> None:
        # It warns that it leaves signals alone, which is what we want.
        logging.getLogger(elastic.__name__).addFilter(lambda record: "signal handlers" not in record.getMessage())
        try:
            torchrun.run(self.options)
            self.code = FINISHED
        except ChildFailedError as error:
            self.code = self._judge(error)
        except Exception as error:  # other machines did not come, or went
            say(f"error: {type(error).__name__}: {error}")

    def _judge(self, error: ChildFailedError) -> int:
        """Return the exit code for ranks that failed; say which one was first and what it said."""
        codes = {failure.exitcode for failure in error.failures.values()}
        if MISTAKE in codes:
            return MISTAKE
        if self.signals and codes.issubset(KILLED):
            return STOPPED
        rank, failure = error.get_first_failure()
        ended = failure.signal_name() if failure.exitcode < 0 else f"exit code {failure.exitcode}"
        say(f"error: rank {rank} was the first to fail: {ended}. What ranks say is in {self.options.log_dir}.")
        files = Path(self.options.log_dir).glob(f"*/attempt_*/{failure.local_rank}/stderr.log")
        for latest in sorted(files, key=lambda file: file.stat().st_mtime)[-1:]:
            lines = latest.read_text(encoding="utf-8", errors="replace").splitlines()
            say(*(f"rank {rank}: {line}" for line in lines[-SHOWN_LINES:]))
        return FAILED


class Since:
    """How long something has held."""

    def __init__(self) -> None:
        self.began: float | None = None

    def seconds(self, holds: bool) -> float:
        """Return for how many seconds it has held without a break, as seen by the calls."""
        self.began = (self.began or time.monotonic()) if holds else None
        return time.monotonic() - self.began if self.began else 0.0


def has_ended(rank: psutil.Process) -> bool:
    """Return whether a rank has ended and torchrun, its parent, has not looked at it since."""
    try:
        return rank.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill(ranks: list[psutil.Process]) -> None:
    """End ranks at once."""
    for rank in ranks:
        with suppress(psutil.NoSuchProcess):
            rank.kill()


def say(*lines: str) -> None:
    """Print to standard error."""
    print(*lines, sep="\n", file=sys.stderr, flush=True)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # a thread that still waits for other machines would hold up a usual end
