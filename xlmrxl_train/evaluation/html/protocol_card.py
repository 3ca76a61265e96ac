"""How a run's scores came about, as a list for people: data, selection, fingerprints, versions, hardware, time.

Energy is what the GPUs' counters said (training/energy.py), else board power times time, an upper bound.

Source: Lacoste et al., "Quantifying the Carbon Emissions of Machine Learning" (2019), for power times time. Watts are
NVIDIA's, as its data sheets have them; the same numbers: mlco2/impact, data/gpus.csv (A100, T4, RTX 3090, A6000, and
both of V100, interchanged); S. Bekman, ml-engineering, compute/accelerator/README.md (B200, H200, H100 NVL, A100);
MLPerf Inference, closed/*/systems ("H200 TGP 700W", "B200 TGP 1000W"); nvidia-smi of EC2's G5 (A10G).
"""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from xlmrxl_train.errors import DataError
from xlmrxl_train.evaluation.comparison.folding import Group
from xlmrxl_train.evaluation.comparison.reading import FinishedRun
from xlmrxl_train.evaluation.html.history import History

# Board power in watt. The first whose words stand in the GPU's name is it; a GB200 is no B200.
_WATT = (
    ("B200", 1000), ("H200 NVL", 600), ("H200", 700), ("H100 PCIe", 350), ("H100 NVL", 400), ("H100", 700),
    ("A100-SXM", 400), ("A100-PCIE-40GB", 250), ("A100", 300), ("A40", 300), ("RTX A6000", 300), ("L40S", 350),
    ("L40", 300), ("L4", 72), ("A10G", 300), ("A10", 150), ("V100-SXM", 300), ("V100", 250), ("T4", 70),
    ("RTX 4090", 450), ("RTX 3090", 350),
)  # fmt: skip

Card = list[tuple[str, str]]


def protocol_card(group: Group, histories: list[History]) -> Card:
    """Return what there is to say of a group of runs: name and value; what the runs do not know is left out."""
    return [(name, value) for name, value in _entries(group, histories) if value]


def _entries(group: Group, histories: list[History]) -> Iterator[tuple[str, str]]:
    run, protocol = group.first, group.first.protocol
    environment = [_environment(each) for each in group.runs]
    first = environment[0]
    yield "setting", group.setting
    yield "recipe", str(protocol.get("recipe", ""))
    yield "model", run.model
    yield "data", f"{run.dataset}, {run.split} split, from {protocol.get('source', 'an unknown source')}"
    yield "trained on", _trained_on(run)
    yield "machine translations", ", ".join(protocol.get("translated") or [])
    yield "shots", ", ".join(f"{len(item['ids'])} of {code}" for code, item in (protocol.get("shots") or {}).items())
    yield "checkpoint", _selected(protocol)
    yield "came before", "; ".join(str(parent.get("run", "")) for parent in protocol.get("parents") or [])
    yield "stand-ins", "; ".join(group.stand_ins)
    yield "limit", ", ".join(f"first {limit:,} examples of each split and language" for limit in group.limits)
    yield "seeds", ", ".join(map(str, group.seeds))
    yield "steps and tokens", f"{protocol.get('steps', 0):,} optimizer steps, {protocol.get('tokens', 0):,} tokens"
    yield "tokenizer", str(first.get("tokenizer") or "")
    for split, fingerprint in (first.get("data") or {}).items():
        yield f"{split} data", str(fingerprint)
    yield "versions", _versions(first)
    yield "commit", str(first.get("commit") or "")
    yield "hardware", "; ".join(dict.fromkeys(_hardware(each) for each in environment if each))
    yield "started", ", ".join(str(each["started"]) for each in environment if each.get("started"))
    seconds = [history.seconds for history in histories]
    if sum(seconds):
        each = " each" if len(seconds) > 1 else ""
        yield "time in steps", f"{_duration(sum(seconds) / len(seconds))}{each}, without evaluation and checkpoints"
        yield "energy", _energy(first, sum(seconds), [history.energy for history in histories])
    yield "folders", ", ".join(str(each.folder) for each in group.runs)


def _environment(run: FinishedRun) -> dict[str, Any]:
    """Return environment.json; a later evaluation has that of the run it belongs to.

    Raises:
        DataError: The file is damaged.
    """
    places = (run.folder, run.folder.resolve().parents[1]) if run.folder.resolve().parent.name == "evaluation" else (
        run.folder,
    )  # fmt: skip
    path = next((place / "environment.json" for place in places if (place / "environment.json").is_file()), None)
    return _read(path) if path else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("it must hold keys and values")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}. Restore it, or remove it to report without it.") from None
    return values


def _trained_on(run: FinishedRun) -> str:
    if run.training:
        return "; ".join(f"{name} in {', '.join(codes)}" for name, codes in run.training.items())
    return ", ".join(run.train_languages)


def _selected(protocol: dict[str, Any]) -> str:
    step = protocol.get("selected_step")
    if not protocol.get("steps") or step is None:
        return ""
    if not protocol.get("select_split"):
        return f"step {step:,}, the last; no split selected it"
    languages = ", ".join(protocol.get("select_languages") or [])
    return f"step {step:,}: best {protocol.get('select_metric')} on {protocol['select_split']} of {languages}"


def _versions(environment: dict[str, Any]) -> str:
    packages = {"Python": environment.get("python"), **(environment.get("packages") or {})}
    return ", ".join(f"{name} {version}" for name, version in packages.items() if version)


def _hardware(environment: dict[str, Any]) -> str:
    cpu, gpus, ranks = environment.get("cpu") or {}, environment.get("gpus") or [], environment.get("world_size", 1)
    parts = [f"{ranks} x {gpus[0] if gpus else environment.get('device', 'cpu')}"]
    if cpu:
        parts.append(f"{cpu.get('model')} with {cpu.get('cores')} cores")
    if environment.get("memory_gb"):
        parts.append(f"{environment['memory_gb']} GB of memory")
    return ", ".join(parts)


def _energy(environment: dict[str, Any], seconds: float, measured: list[float | None]) -> str:
    gpus, ranks = environment.get("gpus") or [], int(environment.get("world_size", 1))
    if None not in measured:
        hours = sum(each for each in measured if each is not None) / 1000
        return f"measured: {hours:.3g} kWh by the counters of the GPUs (NVML) in these steps, without host and cooling"
    if not gpus:
        return "not estimated: the power of this processor is not known"
    watt = next((watt for name, watt in _WATT if re.search(rf"\b{name}", gpus[0], re.IGNORECASE)), None)
    if watt is None:
        return f"not estimated: the power of {gpus[0]} is not known"
    hours = ranks * watt * seconds / 3_600_000
    return (
        f"estimated: at most {hours:.3g} kWh, {ranks} x {watt} W of board power for {_duration(seconds)}, "
        "without host and cooling"
    )


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds))) if seconds >= 60 else f"{seconds:.1f} s"
