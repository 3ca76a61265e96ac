"""`xlmrxl doctor`: is this machine ready for a run?"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import chain

from rich.console import Console
from rich.text import Text

from xlmrxl_train.cli.compose import load_config
from xlmrxl_train.cli.flags import Flag, read_words
from xlmrxl_train.doctor.finding import GOOD, LOOK, RED, Finding
from xlmrxl_train.doctor.quick import quick
from xlmrxl_train.launcher import is_first
from xlmrxl_train.track.secrets import redact

EXAMPLES = """\
  xlmrxl doctor                                    this machine
  xlmrxl doctor recipe=xnli strategy=zero3_nvme strategy.nvme_path=/local/me
                                                   and what this run would meet: tokenizer, data, memory
  torchrun --nproc-per-node 8 -m xlmrxl_train doctor
                                                   and whether ranks reach each other, and how fast
  xlmrxl doctor recipe=xnli --quick --json         what takes no time, for scripts
Exit code 1: something is red. launch/ runs it with --quick first."""
_COLOURS = {GOOD: "green", LOOK: "yellow", RED: "bold red"}


def main(words: Sequence[str]) -> int:
    """Look at this machine; return 1 where a run would fail.

    Raises:
        ConfigError: A word is wrong.
    """
    read = read_words("doctor", words, {"--quick": Flag(), "--json": Flag(), "--config-dir": Flag(example="DIR")})
    config = load_config(read.places, config_dir=read.values.get("--config-dir")) if read.places else None
    found: Iterable[Finding] = quick(config)
    if "--quick" not in read.values:
        from xlmrxl_train.doctor.ranks import examine  # late: it imports torch

        found = chain(found, examine(config))
    if "--json" in read.values:
        findings = list(found)
        if is_first():
            values = {"ready": _ready(findings), "findings": [redact(asdict(finding)) for finding in findings]}
            print(json.dumps(values, indent=1, ensure_ascii=False))
        return 0 if _ready(findings) else 1
    return 0 if _ready(_show(found)) else 1


def _ready(findings: Sequence[Finding]) -> bool:
    return all(finding.state != RED for finding in findings)


def _show(found: Iterable[Finding]) -> list[Finding]:
    console, shown = Console(highlight=False, soft_wrap=True), []
    for finding in found:
        shown.append(finding)
        if is_first():
            line = Text(f"{finding.state:<5}", style=_COLOURS[finding.state])
            line.append(redact(f"{finding.name}: {finding.found}"), style="default")
            console.print(line)
            if finding.remedy:
                console.print(Text(redact(f"     {finding.remedy}"), style="dim"))
    return shown
