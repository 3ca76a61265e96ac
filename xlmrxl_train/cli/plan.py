"""`xlmrxl plan`: what a run would need, as a table with bars, or as JSON."""

import json

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from xlmrxl_train.config import Config
from xlmrxl_train.forecast import plan
from xlmrxl_train.plan.planning import Plan
from xlmrxl_train.spelling import gigabytes
from xlmrxl_train.track.secrets import redact

EXAMPLES = """\
  xlmrxl plan recipe=xnli                                                  on this machine
  xlmrxl plan recipe=xnli strategy=zero3 plan.hardware=8xA100-80GB plan.nodes=4
  xlmrxl plan recipe=xnli plan.hardware=RTX4090 --json                     for programs: bytes, tokens and seconds

It exits with 1 where the run does not fit."""
BAR = 40  # characters of the usable memory
WIDTH = 100


def main(config: Config, *, as_json: bool) -> int:
    """Print the plan; return 1 where the run does not fit."""
    planned = plan(config)
    if as_json:
        print(json.dumps(redact(planned.to_dict()), indent=1))
    else:
        show(planned, Console(highlight=False, width=WIDTH))
    return 0 if planned.fits else 1


def show(planned: Plan, console: Console) -> None:
    """Print a plan for people."""
    p = planned
    trained = "all trained" if p.trained == p.parameters else f"{p.trained:,} trained"
    console.print(Text(f"{p.parameters:,} parameters, {trained}; {p.precision}, recompute {p.recompute}"))
    console.print(Text(f"strategy={p.strategy} on {p.hardware}"))
    console.print(_memory(p))
    for name, text in _lines(p):
        console.print(Text(f"{name:<12}{text}"), soft_wrap=True)


def _memory(p: Plan) -> Table:
    table = Table(box=SIMPLE, pad_edge=False, show_header=True)
    table.add_column("each rank")
    table.add_column("GB", justify="right")
    table.add_column(f"of {p.usable / 1e9:,.1f} usable", no_wrap=True)
    for name, count in (
        ("weights", p.weights),
        ("gradients", p.gradients),
        ("optimizer", p.optimizer),
        (f"activations, {p.tokens:,} tokens", p.activations),
        ("engine's buffers, and on the way", p.buffers),
    ):
        table.add_row(name, _short(count), bar(count, p.usable))
    table.add_section()
    for name, count in (
        ("most at once: training", p.training),
        (f"  with {p.tokens_per_micro_batch:,} tokens", p.training_at_budget),
        ("  loading", p.loading),
    ):
        style = "red" if count > p.usable else "green"
        table.add_row(name, _short(count), Text(bar(count, p.usable), style=style))
    return table


def bar(count: float, whole: float) -> str:
    """Return a bar of `count`; one that is longer than the whole ends in an arrow."""
    eighths = round(8 * BAR * count / whole) if whole > 0 else 8 * BAR + 1
    if eighths > 8 * BAR:
        return "█" * (BAR - 1) + "▶"
    full, rest = divmod(eighths, 8)
    return "█" * full + " ▏▎▍▌▋▊▉"[rest].strip()


def _lines(p: Plan) -> list[tuple[str, str]]:
    """Return what stands below the table."""
    lines = [("fits", f"yes, {gigabytes(p.usable - p.training)} are left")]
    if not p.fits:
        remedy = f"it would with {' '.join(p.remedy)}" if p.remedy else "use more or larger devices, or a smaller model"
        lines = [("fits", f"no; {remedy}")]
    budget = "not one sequence" if p.largest_budget is None else f"train.tokens_per_micro_batch={p.largest_budget}"
    lines.append(("at most", f"{budget}; this run's steps fill {p.tokens:,} of {p.tokens_per_micro_batch:,}"))
    known = f" of {gigabytes(p.host_memory)}" if p.host_memory else ""
    if p.host:
        lines.append(("host", f"{gigabytes(p.host)}{known} on each machine"))
    if p.host_saving:
        lines.append(("saving", f"{gigabytes(p.host_saving)} more in each machine's memory, where that has room"))
    if p.disk:
        lines.append(("disk", f"{gigabytes(p.disk)} on each machine"))
    if p.ranks > 1:
        lines.append(("sends", f"{gigabytes(p.sent)} per step and rank, {p.seconds_sending:.2g} s of wire"))
    lines.append(
        (
            "speed",
            f"{p.tokens_per_second:,.0f} tokens/s, {p.seconds_per_step:.2g} s per step, {p.flops / 1e9:,.3g} GFLOP per "
            f"token at {p.efficiency:.0%} of the matrix peak ({p.efficiency_origin})",
        )
    )
    if p.seconds is not None:
        lines.append(("time", f"{p.steps:,} steps in {duration(p.seconds)}, without evaluation"))
    lines += [("lengths", p.lengths), ("vocabulary", p.words)]
    lines.append(("checkpoint", f"{gigabytes(p.checkpoint)} each; the model {gigabytes(p.model)}"))
    return lines


def duration(seconds: float) -> str:
    """Return 5000 as "1 h 23 min"."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min"


def _short(count: float) -> str:
    return f"{count / 1e9:,.1f}" if count >= 1e8 else f"{count / 1e9:,.3f}"
