"""Run one process per combination of swept values, one after the other; a failed job does not lose the others."""

import itertools
import re
import shlex
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.errors import HydraException

from xlmrxl_train.cli.compose import compose_config
from xlmrxl_train.cli.library import Library, library
from xlmrxl_train.cli.typed import MIXTURE
from xlmrxl_train.errors import ConfigError


@dataclass(kw_only=True, slots=True)
class Job:
    """One combination."""

    overrides: list[str]
    swept: dict[str, str]  # key -> this job's value, of the keys that are swept
    folder: str = ""
    recipe: str = ""
    state: str = "not started"
    faults: tuple[str, ...] = field(default_factory=tuple)

    @property
    def label(self) -> str:
        """The swept keys with their values."""
        return " ".join(f"{key}={value}" for key, value in self.swept.items()) or "(no key is swept)"

    def named(self, keys: Sequence[str]) -> list[str]:
        """Return swept keys with their values, in letters that may be part of a name."""
        return [f"{key}={re.sub(r'[^A-Za-z0-9._+-]+', '-', self.swept[key])}" for key in keys]


def expand(overrides: Sequence[str], files: Library) -> list[Job]:
    """Return the jobs that `overrides` mean in Hydra's grammar: a,b,c  choice(a,b)  range(1,4)  glob(xtreme/*).

    Raises:
        ConfigError: A sweep means nothing: an interval, an empty range, a glob without a match.
    """
    axes: list[list[tuple[str, str | None]]] = []  # one axis per override: (line, swept value or None)
    faults = []
    for line in overrides:
        try:
            axes.append(_axis(line, files))
        except (HydraException, ValueError) as error:
            faults.append(f"{line} cannot be swept over: {str(error).splitlines()[0].rstrip('.')}.")
    if faults:
        raise ConfigError(*faults)
    return [
        Job(
            overrides=[line for line, _ in combination],
            swept={line.partition("=")[0].lstrip("+"): value for line, value in combination if value is not None},
        )
        for combination in itertools.product(*axes)
    ]


def _axis(line: str, files: Library) -> list[tuple[str, str | None]]:
    try:
        parsed = OverridesParser.create().parse_override(line)
    except HydraException:
        return [(line, None)]  # not a sweep; composition says what is wrong with it, or takes it as text
    if not parsed.is_sweep_override():
        return [(line, None)]
    if not parsed.is_discrete_sweep():
        raise ValueError("an interval needs a search; use range(start, stop, step)")
    swept: object = parsed.value()
    if isinstance(swept, Glob):  # Hydra's own looks into one folder only; recipes may lie deeper
        group = "dataset" if parsed.key_or_group.startswith(MIXTURE) else parsed.key_or_group
        values = swept.filter(sorted(files.groups.get(group, {})))
    else:
        values = list(parsed.sweep_string_iterator())
    if not values:
        raise ValueError("it matches nothing")
    return [(f"{line.partition('=')[0]}={value}", value) for value in values]


def plan(overrides: Sequence[str], config_dir: str | Path | None) -> list[Job]:
    """Return the jobs with their folders, no two the same, and with the faults of those that cannot run.

    Jobs that would share a folder get their swept keys added to run.name: `seed-1,optimizer.lr=1e-5`.

    Raises:
        ConfigError: A sweep means nothing, every job has a fault, or run.dir is the same for several jobs.
    """
    files = library(config_dir)
    jobs = expand(overrides, files)
    names = [_place(job, files) for job in jobs]
    for folder, same in _by_folder(jobs).items():
        if len(same) == 1:
            continue
        varying = [key for key in same[0].swept if len({job.swept[key] for job in same}) > 1]
        for job in same:
            name = ",".join([names[jobs.index(job)], *job.named(varying)])
            job.overrides.append(f"run.name='{name}'")
            _place(job, files)
        if len(_by_folder(same)) < len(same):
            raise ConfigError(
                f"run.dir must differ between jobs, got {folder} for {len(same)} of them. "
                "Leave run.dir out, or write ${run.name} in it."
            )
    for job in jobs:
        _group(job)
    if jobs and all(job.faults for job in jobs):
        raise ConfigError(*dict.fromkeys(fault for job in jobs for fault in job.faults))
    return jobs


def _group(job: Job) -> None:
    """Let trackers show the seeds of one combination together, and apart from other combinations."""
    varied = [key for key in job.swept if key not in ("seed", "recipe")]
    if varied and job.recipe and not any(line.startswith("tracker.group=") for line in job.overrides):
        job.overrides.append(f"tracker.group='{' '.join([job.recipe, *job.named(varied)])[:120]}'")


def _place(job: Job, files: Library) -> str:
    """Set the job's folder and faults; return its run.name."""
    config, job.faults = compose_config(job.overrides, files)
    if job.faults:
        job.state = "refused"
    else:
        job.folder, job.recipe = config.run.dir, config.run.recipe
    return config.run.name


def _by_folder(jobs: Sequence[Job]) -> dict[str, list[Job]]:
    folders = defaultdict(list)
    for job in jobs:
        if not job.faults:
            folders[str(Path(job.folder).resolve())].append(job)
    return folders


def sweep(command: str, overrides: Sequence[str], *, config_dir: str | Path | None) -> int:
    """Run every job of a sweep and print what became of each; return 1 if any did not finish.

    Raises:
        ConfigError: As `plan`.
        KeyboardInterrupt: After the table, when the user stopped the sweep.
    """
    jobs = plan(overrides, config_dir)
    for job in jobs:
        for fault in job.faults:
            print(f"error: {job.label}: {fault}", file=sys.stderr)
    interrupted = False
    for number, job in enumerate(jobs, 1):
        if job.faults:
            continue
        print(f"job {number} of {len(jobs)}: {job.label} -> {job.folder}", flush=True)
        try:
            code = _run(_command_line(command, job, config_dir))
        except KeyboardInterrupt:
            job.state, interrupted = "interrupted", True
            break
        job.state = "finished" if code == 0 else f"failed (exit code {code})"
    print(table(jobs), flush=True)
    if command == "train" and (done := [job.folder for job in jobs if job.state == "finished"]):
        print(f"side by side: xlmrxl report {shlex.join(done)}", flush=True)
    if interrupted:
        raise KeyboardInterrupt
    return 0 if all(job.state == "finished" for job in jobs) else 1


def table(jobs: Sequence[Job]) -> str:
    """Return one line per job: number, state, what it swept, folder."""
    rows = [(str(number), job.state, job.label, job.folder) for number, job in enumerate(jobs, 1)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join("  ".join([*map(str.ljust, row[:3], widths), row[3]]).rstrip() for row in rows)


def _command_line(command: str, job: Job, config_dir: str | Path | None) -> list[str]:
    own = ["--config-dir", str(config_dir)] if config_dir is not None else []
    return [sys.executable, "-m", "xlmrxl_train", command, *own, *job.overrides]


def _run(command_line: list[str]) -> int:
    """Run one job; a signal that ends the sweep ends the job first, so that it can save."""
    process = subprocess.Popen(command_line)

    def hand_on(number: int, _frame: FrameType | None) -> None:
        process.send_signal(number)

    before = signal.signal(signal.SIGTERM, hand_on)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()  # the terminal sent it the same signal
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
