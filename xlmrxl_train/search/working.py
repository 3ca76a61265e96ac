"""One worker of a study: it begins trials, each a process, watches their scores, ends those that fall behind."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from xlmrxl_train.catalogue import free_checkpoints, holder, look_at
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.evaluation.numbers import number
from xlmrxl_train.search.results import best_of, sign_of, write_results
from xlmrxl_train.search.study import Claim, Outcome, Study

PAUSE = 0.2  # seconds between looks at the trials
ASK_AGAIN = 20.0  # seconds until a worker whose study had no trial left asks whether another worker was lost
_SIGNALS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGUSR1: "SIGUSR1", signal.SIGHUP: "SIGHUP"}


@dataclass(kw_only=True)
class Job:
    """A trial that this worker works at."""

    claim: Claim
    folder: Path  # of its run
    log: Path
    slot: int  # its place among those that this worker runs at a time
    process: subprocess.Popen[bytes] | None = None  # not before one that a killed worker has left there is gone
    looks: int = 0  # at the validation split that the study knows of
    scores: list[float] = field(default_factory=list)  # of all looks, higher is better
    size: int = -1  # of metrics.jsonl, in bytes, when they were read
    pruned: str = ""  # why
    told: int = 0  # of the worker's signals


@dataclass(kw_only=True)
class Worker:
    """Runs up to `workers` trials of a study at a time."""

    study: Study
    command: Callable[[Claim], list[str]]  # the command line of a trial
    best_command: Callable[[dict[str, str]], list[str]]  # that of the best parameters
    folder: Callable[[Claim], Path]  # of the trial's run
    select: str  # best | last: which look scores a trial
    workers: int
    devices: Sequence[str]  # GPUs, to be divided among the trials; none: all trials see what this process sees
    keep_models: bool
    say: Callable[[str], None]
    asked: str | None = None  # why to stop
    signals: list[signal.Signals] = field(default_factory=list)  # that the trials are to get
    jobs: list[Job] = field(default_factory=list)
    next_ask: float = 0.0  # not before, by the monotonic clock

    def work(self, trials: int) -> str | None:
        """Run trials until the study has so many; return why it stopped earlier, if it did.

        Trials that run when the worker is asked to stop are asked to save; they go on when the study does.
        """
        with self._signals():
            self._record()  # where the last worker was killed before it did
            while True:
                self._begin(trials)
                if not self.jobs:
                    return self.asked
                if self.asked and not any(job.told for job in self.jobs):
                    self.say(f"{self.asked}: trials save and stop at their next step")
                for job in list(self.jobs):
                    if outcome := self._look(job):
                        self.jobs.remove(job)
                        self._end(job, outcome)
                        self.next_ask = 0.0
                time.sleep(PAUSE)

    def _begin(self, trials: int) -> None:
        while self.asked is None and len(self.jobs) < self.workers and time.monotonic() >= self.next_ask:
            if (claim := self.study.ask(trials)) is None:
                self.next_ask = time.monotonic() + ASK_AGAIN
                return
            slot = min(set(range(self.workers)) - {job.slot for job in self.jobs})
            log = self.study.folder / "logs" / f"{claim.name}.txt"
            log.parent.mkdir(exist_ok=True)
            self.jobs.append(Job(claim=claim, folder=self.folder(claim), log=log, slot=slot))
            words = " ".join(f"{key}={value}" for key, value in claim.parameters.items())
            self.say(f"trial {claim.number}: {words} -> {self.jobs[-1].folder}")
            if worker := holder(self.jobs[-1].folder):
                self.say(f"trial {claim.number}: {worker} is still at it; waiting for that")

    def _look(self, job: Job) -> Outcome | None:
        """Start a trial, or look how it stands; return what came of it, once it has ended."""
        if job.process is None:
            if self.asked:
                return Outcome(state="stopped", why=f"stopped: {self.asked}")
            if not holder(job.folder):
                job.process = self._start(job)
            return None
        while job.told < len(self.signals):
            job.process.send_signal(self.signals[job.told])
            job.told += 1
        code = job.process.poll()  # before the scores are read, so that none is missed
        self._read_scores(job)
        for score in job.scores[job.looks :]:
            job.claim.trial.report(score, job.looks)
            job.looks += 1
            self.say(f"trial {job.claim.number}: look {job.looks}, {self._shown(score)}")
            if code is None and not job.pruned and not self.asked and job.claim.trial.should_prune():
                job.pruned = f"pruned: below the median of earlier trials at look {job.looks}"
                job.process.terminate()
        if code is None:
            return None
        if (job.folder / "report.json").is_file():
            if not job.scores:
                return Outcome(state="failed", why="it finished without a score on the validation split")
            return Outcome(state="finished", score=max(job.scores) if self.select == "best" else job.scores[-1])
        if job.pruned:
            return Outcome(state="pruned", why=job.pruned)
        if self.asked:
            return Outcome(state="stopped", why=f"stopped: {self.asked}")
        return Outcome(state="failed", why=_why(job.folder, job.log, code))

    def _read_scores(self, job: Job) -> None:
        """Read the selection scores of all looks at the validation split so far."""
        path, found = job.folder / "metrics.jsonl", list[dict[str, Any]]()
        if not path.is_file() or (size := path.stat().st_size) == job.size:
            return
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if '"selection"' in line:
                    with suppress(ValueError):  # the last one may be half written
                        found.append(json.loads(line))
        found = [event for event in found if event.get("event") == "selection"]
        if found:
            self.study.note_metric(str(found[0]["metric"]))
        job.size, job.scores = size, [float(event["score"]) for event in found]

    def _start(self, job: Job) -> subprocess.Popen[bytes]:
        command = self.command(job.claim)
        with job.log.open("ab") as out:
            out.write(f"$ {shlex.join(command)}\n".encode())
            out.flush()
            # In a session of its own: a terminal's Ctrl-C is ours to hand on, once.
            return subprocess.Popen(
                command, stdout=out, stderr=out, env=self._environment(job.slot), start_new_session=True
            )

    def _environment(self, slot: int) -> dict[str, str]:
        """Return the variables of a trial: its share of the GPUs, or of the cores."""
        variables = dict(os.environ)
        if self.workers > 1 and self.devices:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(self.devices[slot :: self.workers])
        elif self.workers > 1:
            variables.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self.workers)))
        return variables

    def _end(self, job: Job, outcome: Outcome) -> None:
        """Record what came of a trial, and keep of its files what is still wanted."""
        if outcome.state == "pruned":
            _say_pruned(job.folder / "stopped.json", outcome.why)
        self.study.tell(job.claim, outcome)
        score = "" if outcome.score is None else f", {self._shown(outcome.score)}"
        self.say(f"trial {job.claim.number}: {outcome.state}{score}{f': {outcome.why}' if outcome.why else ''}")
        if outcome.state != "stopped" and not self.keep_models:
            _free(job.folder)
        self._record()

    def _record(self) -> None:
        """Write what has come of all trials, and keep the best model only."""
        rows = self.study.rows()
        best = best_of(rows, self.study.metric)
        for row in rows:
            if row.state == "finished" and not self.keep_models and best and row.folder != best.folder:
                for name in ("model", "adapter"):
                    shutil.rmtree(Path(row.folder) / name, ignore_errors=True)
        write_results(self.study.folder, rows, self.study.metric, self.best_command(best.parameters) if best else [])

    def _shown(self, score: float) -> str:
        metric = self.study.metric
        return f"{metric} {number(metric, sign_of(metric) * score)}"

    @contextmanager
    def _signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._stop) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            for job in self.jobs:  # only where this worker fails itself
                if job.process is not None:
                    job.process.terminate()

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        """Note what trials are to be told: to save and stop; of a second Ctrl-C to end at once, of a third to die."""
        if self.asked is None:
            self.asked = _SIGNALS[signal.Signals(number)]
            self.signals.append(signal.Signals(number))
        elif number == signal.SIGINT:
            self.signals.append(signal.SIGKILL if len(self.signals) > 1 else signal.SIGINT)


def devices(workers: int, device: str) -> list[str]:
    """Return the GPUs to divide among several trials at a time; none where they share what there is.

    Raises:
        ConfigError: There are fewer than trials.
    """
    if workers == 1 or device == "cpu":
        return []
    import torch  # late: it takes seconds

    return usable(os.environ.get("CUDA_VISIBLE_DEVICES", ""), torch.cuda.device_count(), workers)


def usable(visible: str, count: int, workers: int) -> list[str]:
    """Return the names of `count` GPUs, as the variable CUDA_VISIBLE_DEVICES has them if it does.

    Raises:
        ConfigError: There are some, but fewer than `workers`.
    """
    if 0 < count < workers:
        raise ConfigError(f"--workers must be at most {count}, the GPUs here, got {workers}. Each trial needs its own.")
    names = visible.split(",")
    return names if len(names) == count else [str(index) for index in range(count)]


def _say_pruned(marker: Path, why: str) -> None:
    """Put the reason into what the run wrote when it was asked to stop, if it still could."""
    step = json.loads(marker.read_text(encoding="utf-8"))["step"] if marker.is_file() else 0
    marker.write_text(json.dumps({"reason": why, "step": step}) + "\n", encoding="utf-8")


def _why(folder: Path, log: Path, code: int) -> str:
    """Return why a trial failed: what its run says of itself, else the last line that it printed."""
    if (folder / "failed.json").is_file() or (folder / "stopped.json").is_file():
        return look_at(folder).why
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f"exit code {code}: {lines[-1].removeprefix('error: ')[:300]}"


def _free(folder: Path) -> None:
    """Remove the checkpoints of a run that has ended."""
    if (folder / "checkpoints").is_dir():
        free_checkpoints(look_at(folder))
