"""`train.profile=true`: how long each part of a step takes, a trace of a few steps, and what they were spent on.

Phases are timed in every step after the first ones; the traced steps are not among them, since tracing slows them
down. On a GPU the phases are read off its own clock, and host synchronisations are counted in the trace.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from torch.autograd.profiler_util import EventList
from torch.profiler import ProfilerActivity, profile

T = TypeVar("T")

WARM_UP, TRACED = 1, 2  # steps
PHASES = ("input wait", "host to device", "forward and backward", "optimizer", "other")
TOP_OPERATIONS = 15
INPUT, STEP, OTHER = "input wait", "step", "other"

Mark = float | torch.cuda.Event


class StepProfile:
    """Clocks and trace of one rank's steps. Wrap the batches in `inputs`, and each part of a step in `phase`."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder = folder
        self.cuda = device.type == "cuda"
        self.device = str(device)
        self.seconds: list[dict[str, float]] = []  # of the steps that were neither warm-up nor traced
        self.operations: EventList | None = None  # of the traced steps
        self._step = 0
        self._marks: list[tuple[str, Mark, Mark]] = []
        self._tracer: profile | None = None

    def inputs(self, batches: Iterator[T]) -> Iterator[T]:
        """Pass on batches and time the wait for each."""
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                return
            self._marks = [(INPUT, began, time.perf_counter())]
            yield batch

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a part of a step; a name may come several times in one step."""
        began = self._now()
        yield
        self._marks.append((name, began, self._now()))

    @contextmanager
    def step(self) -> Iterator[None]:
        """Time a whole step, and trace it if its turn has come; the step ends in a host synchronisation."""
        if self._step == WARM_UP:
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.cuda else [])]
            self._tracer = profile(activities=activities, acc_events=True)
            self._tracer.start()
        began = time.perf_counter()
        yield
        self._marks.append((STEP, began, time.perf_counter()))
        if self._tracer is None and self._step >= WARM_UP:
            self.seconds.append(self._sums())
        self._step += 1
        if self._step == WARM_UP + TRACED:
            self._end_trace()

    def finish(self, say: Callable[[str], None]) -> None:
        """Write the trace and the summary, and show the table of phases."""
        self._end_trace()
        if not self.seconds:
            say(f"train.profile needs more than {WARM_UP + TRACED} steps, had {self._step}: nothing was written")
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "summary.md").write_text(self.summary(), encoding="utf-8")
        for line in self.phases_table():
            say(line)
        say(f"profile written: {self.folder / 'summary.md'}, trace.json (open it in https://ui.perfetto.dev)")

    def medians(self) -> dict[str, float]:
        """Return the median seconds of each phase, and of "step" with its wait for input."""
        return {name: statistics.median(step[name] for step in self.seconds) for name in (*PHASES, STEP)}

    def phases_table(self) -> list[str]:
        """Return a Markdown table of time per phase."""
        medians = self.medians()
        whole = sum(medians[name] for name in PHASES)
        rows = [f"| {name} | {1000 * medians[name]:.2f} | {medians[name] / whole:.1%} |" for name in PHASES]
        return ["| phase of a step | ms (median) | share |", "| --- | ---: | ---: |", *rows]

    def host_synchronisations(self) -> float:
        """Return how often per traced step the host waited for the GPU."""
        names = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
        return float(sum(event.count for event in self.operations or [] if event.key in names)) / TRACED

    def summary(self) -> str:
        """Return the whole report in Markdown."""
        medians = self.medians()
        share = medians[INPUT] / (medians[STEP] + medians[INPUT])
        lines = [
            "# Profile of the training step",
            "",
            f"{len(self.seconds)} steps on {self.device}, {torch.get_num_threads()} threads, "
            f"torch {torch.__version__}. Waiting for input takes {share:.2%} of a step.",
            "",
            *self.phases_table(),
            "",
        ]
        if self.cuda:
            lines += [f"Host synchronisations per step: {self.host_synchronisations():.1f}.", ""]
        if self.operations is not None:
            lines += self._operations_table(self.operations)
        return "\n".join(lines)

    def _operations_table(self, operations: EventList) -> list[str]:
        field = "self_device_time_total" if self.cuda else "self_cpu_time_total"
        ordered = sorted(operations, key=lambda event: -getattr(event, field))
        whole = sum(getattr(event, field) for event in ordered) or 1.0
        lines = [
            f"Operations of {TRACED} traced steps, without those they call (tracing slows small ones most):",
            "",
            "| operation | ms per step | share | calls per step |",
            "| --- | ---: | ---: | ---: |",
        ]
        for event in ordered[:TOP_OPERATIONS]:
            spent = getattr(event, field)
            lines.append(
                f"| `{event.key}` | {spent / 1000 / TRACED:.2f} | {spent / whole:.1%} | {event.count / TRACED:.0f} |"
            )
        return [*lines, ""]

    def _now(self) -> Mark:
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _sums(self) -> dict[str, float]:
        sums = dict.fromkeys((*PHASES, STEP), 0.0)
        for name, began, ended in self._marks:
            sums[name] += _elapsed(began, ended)
        inside = sum(sums[name] for name in PHASES if name != INPUT)
        sums[OTHER] = max(0.0, sums[STEP] - inside)
        return sums

    def _end_trace(self) -> None:
        if self._tracer is None:
            return
        tracer, self._tracer = self._tracer, None
        tracer.stop()
        self.operations = tracer.key_averages()
        self.folder.mkdir(parents=True, exist_ok=True)
        tracer.export_chrome_trace(str(self.folder / "trace.json"))


def _elapsed(began: Mark, ended: Mark) -> float:
    """Return seconds."""
    if isinstance(began, float) and isinstance(ended, float):
        return ended - began
    assert not isinstance(began, float) and not isinstance(ended, float)
    return float(began.elapsed_time(ended)) / 1000  # both have happened: the step ended in a synchronisation
