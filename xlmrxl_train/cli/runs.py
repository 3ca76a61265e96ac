"""`xlmrxl runs` lists runs, `xlmrxl clean` frees the checkpoints of those that need none any more."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from xlmrxl_train.catalogue import FINISHED, RUNNING, Run, age, free_checkpoints, look
from xlmrxl_train.cli.flags import Flag, read_words
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.evaluation.numbers import number
from xlmrxl_train.spelling import gigabytes
from xlmrxl_train.track.secrets import redact

RUNS_EXAMPLES = """\
  xlmrxl runs                    every run below runs/: state, steps, score, age, size on disk
  xlmrxl runs 'runs/xnli/*'      those of folders and globs
  xlmrxl runs --json             for scripts"""
CLEAN_EXAMPLES = """\
  xlmrxl clean                   checkpoints of finished runs below runs/; it shows them and asks
  xlmrxl clean runs/xnli --yes   without asking
  xlmrxl clean --all             also of runs that stopped or failed, which then begin anew; never of running ones
model/, reports and predictions stay."""


def list_runs(words: Sequence[str]) -> int:
    """Print a line for each run.

    Raises:
        ConfigError: A word is wrong.
        RunError: A folder holds no run.
    """
    read = read_words("runs", words, {"--json": Flag()})
    runs = look(read.places or ["runs"])
    if "--json" in read.values:
        print(json.dumps([redact(asdict(run) | {"folder": str(run.folder)}) for run in runs], indent=1))
    else:
        rows = [("run", "state", "step", "score", "age", "size", "")]
        print(table([*rows, *map(_row, runs)]))
    return 0


def clean(words: Sequence[str]) -> int:
    """Free checkpoints; return 1 where nothing was freed because the answer was no.

    Raises:
        ConfigError: A word is wrong, or nobody can be asked.
        RunError: A folder holds no run, or cannot be changed.
    """
    read = read_words("clean", words, {"--yes": Flag(), "--all": Flag()})
    everything = "--all" in read.values
    chosen = []
    for run in look(read.places or ["runs"]):
        if not run.checkpoints:
            continue
        if kept := _why_kept(run, everything):
            print(f"kept: {run.folder}, {gigabytes(run.checkpoints)}: {kept}", file=sys.stderr)
        else:
            chosen.append(run)
    if not chosen:
        print("no checkpoints to free", file=sys.stderr)
        return 0
    rows = [(str(run.folder), run.state, gigabytes(run.checkpoints)) for run in chosen]
    print(table([*rows, ("all", "", gigabytes(sum(run.checkpoints for run in chosen)))]))
    if "--yes" not in read.values and not _agreed():
        print("nothing was removed", file=sys.stderr)
        return 1
    freed = sum(free_checkpoints(run) for run in chosen)
    print(f"freed {gigabytes(freed)}", file=sys.stderr)
    return 0


def _why_kept(run: Run, everything: bool) -> str | None:
    if run.state == RUNNING:
        return f"running ({run.why})"
    if run.state != FINISHED:
        return None if everything else f"{run.state}, and would go on from them; --all removes them"
    if not run.has_model:
        return "they are its only weights (train.save_model=false)"
    return None


def _agreed() -> bool:
    if not sys.stdin.isatty():
        raise ConfigError("clean asks before it removes anything, but standard input is no terminal. Add --yes.")
    print("remove these checkpoints? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _row(run: Run) -> tuple[str, ...]:
    steps = f"{run.step:,}" + (f"/{run.total_steps:,}" if run.total_steps else "")
    score = "-" if run.metric is None or run.score is None else f"{run.metric} {number(run.metric, run.score)}"
    return str(run.folder), run.state, steps, score, age(run), gigabytes(run.size), redact(run.why)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as lines, with columns of even width."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
