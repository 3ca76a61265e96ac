"""README.md of an exported model, as the Hub shows it: what a run says of itself, and nothing that it does not."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from xlmrxl_train import __version__
from xlmrxl_train.data.languages import language
from xlmrxl_train.errors import CheckpointError, RunError
from xlmrxl_train.evaluation.comparison.reading import FinishedRun, read_run
from xlmrxl_train.evaluation.protocol import Protocol
from xlmrxl_train.evaluation.report import Report
from xlmrxl_train.hub import IN_RUN, is_local
from xlmrxl_train.inference.export.usage import PIPELINE_TAGS, snippet
from xlmrxl_train.inference.model_folder import ModelFolder
from xlmrxl_train.model.adapted_weights import ADAPTER_CONFIG
from xlmrxl_train.track.secrets import redact


def write_card(source: ModelFolder, target: Path, licence: str | None = None) -> None:
    """Write README.md from the report, the configuration and the environment of the model's run.

    Args:
        source: Of a finished run.
        target: The exported folder.
        licence: Of the weights, as the Hub writes it ("mit"); None: the card says that none was stated.

    Raises:
        RunError: The run's files cannot be read.
        CheckpointError: The card cannot be written.
    """
    assert source.run is not None
    text = card_of(source, read_run(source.run, must_score=False), _environment(source.run), licence)
    try:
        (target / "README.md").write_text(redact(text), encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"{target / 'README.md'} cannot be written: {error.strerror}. Free space.") from error


def card_of(source: ModelFolder, run: FinishedRun, environment: dict[str, Any], licence: str | None) -> str:
    """Return the page with its YAML head. No folder of this machine is named in it."""
    protocol = _without_folders(Protocol(**run.protocol))
    report = Report(protocol=protocol, languages=run.languages, metrics=run.metrics, notes=run.notes)
    head = yaml.safe_dump(_head(source, run, licence), sort_keys=False, allow_unicode=True, width=120)
    scores = report.to_markdown().partition("\n")[2].strip()  # without its title, which this page has
    sections = [
        f"---\n{head}---",
        f"# {protocol.model} on {protocol.trained_on()}: {protocol.recipe}",
        f"`{source.model_class.__name__}`, written by xlmrxl_train {__version__} from the run that trained it.",
        f"## Scores on the {protocol.split} split of {protocol.dataset}\n\n{scores}",
        f"## Data\n\n{_data(run)}",
        f"## Training\n\n{_training(run)}",
        f"## Hardware and versions\n\n{_hardware(environment)}",
        f"## Licence\n\n{_licence(run, licence)}",
        f"## How to use\n\n{_usage(source)}",
    ]
    return "\n\n".join(sections) + "\n"


def _head(source: ModelFolder, run: FinishedRun, licence: str | None) -> dict[str, Any]:
    """Return the keys that the Hub reads.

    Source: https://huggingface.co/docs/hub/model-cards, section Model card metadata.
    """
    codes = dict.fromkeys(language(code).base for code in [*run.train_languages, *run.languages])
    base, repositories = run.settings.get("model.path"), _repositories(run)
    values: dict[str, Any] = {
        "library_name": "peft" if _is_adapter(source) else "transformers",
        "pipeline_tag": PIPELINE_TAGS[source.model_class.__name__],
        "language": list(codes),
        "license": licence,
        "base_model": base if isinstance(base, str) and not is_local(base) else None,
        "datasets": repositories or None,
        "tags": ["xlm-roberta-xl", "cross-lingual", "xlmrxl_train"],
        "model-index": [
            {
                "name": run.protocol["recipe"],
                "results": [_result(source, run, code, repositories) for code in run.languages],
            }
        ]
        if run.languages
        else None,
    }
    return {key: value for key, value in values.items() if value is not None}


def _result(source: ModelFolder, run: FinishedRun, code: str, repositories: list[str]) -> dict[str, Any]:
    score = run.languages[code]
    return {
        "task": {"type": PIPELINE_TAGS[source.model_class.__name__]},
        "dataset": {
            "name": f"{run.dataset} ({code})",
            "type": repositories[0] if repositories else run.dataset,
            "config": code,
            "split": run.split,
        },
        "metrics": [{"type": name, "value": round(score.values[name], 6)} for name in run.metrics],
    }


def _is_adapter(source: ModelFolder) -> bool:
    return (source.path / ADAPTER_CONFIG).is_file()


def _usage(source: ModelFolder) -> str:
    labels = source.config.num_labels if _is_adapter(source) else None
    return snippet(source.model_class.__name__, adapter_labels=labels)


def _repositories(run: FinishedRun) -> list[str]:
    """Return the data sets on the Hub that were read; none where files or samples stood in for them."""
    if run.protocol.get("source") != "hub":
        return []
    keys = (key for key in run.settings if key.endswith("hub.repository"))
    return list(dict.fromkeys(str(run.settings[key]) for key in keys if run.settings[key]))


def _without_folders(protocol: Protocol) -> Protocol:
    parents = [parent | {"run": Path(str(parent["run"])).name, "model": _name(parent["model"])}
               for parent in protocol.parents]  # fmt: skip
    return replace(protocol, model=_name(protocol.model), parents=parents)


def _name(model: str) -> str:
    """Return a Hub id or a size as it is, a folder by its last name (or its run's)."""
    if not is_local(model):
        return model
    path = Path(model)
    return path.parent.name if path.name in IN_RUN and path.parent.name else path.name


def _data(run: FinishedRun) -> str:
    lines = []
    for name in [run.dataset, *(other for other in run.training if other != run.dataset)]:
        prefix = next(
            (key.removesuffix("name") for key, value in run.settings.items() if key.endswith(".name") and value == name
             and key.startswith(("dataset.", "mixture."))), "dataset.",
        )  # fmt: skip
        citation, terms = run.settings.get(f"{prefix}citation"), run.settings.get(f"{prefix}license")
        used = run.training.get(name)
        trained = f"trained on in {', '.join(used)}" if used else "evaluated only"
        lines.append(f"- {name}: {trained}. {citation or 'No citation is known'}. Licence: {terms or 'not known'}.")
    stand_ins = [f"- **Stand-in**: {text}." for text in run.protocol.get("stand_ins", [])]
    return "\n".join([*lines, *stand_ins])


_SETTINGS = {
    "tuning.name": "what learns", "tuning.rank": "rank", "tuning.alpha": "alpha", "tuning.weights": "weights below",
    "train.batch_size": "examples per step", "train.precision": "precision", "optimizer.name": "optimizer",
    "optimizer.lr": "peak learning rate", "optimizer.weight_decay": "weight decay", "schedule.name": "schedule",
    "train.max_grad_norm": "gradient norm at most", "task.max_length": "tokens per text at most",
    "strategy.name": "strategy", "seed": "seed",
}  # fmt: skip


def _training(run: FinishedRun) -> str:
    rows = [f"| {text} | {run.settings[key]} |" for key, text in _SETTINGS.items() if run.settings.get(key) is not None]
    protocol = run.protocol
    rows += [f"| steps | {protocol['steps']:,} |", f"| tokens | {protocol['tokens']:,} |"]
    return "\n".join(["| setting | value |", "| --- | --- |", *rows])


def _environment(run: Path) -> dict[str, Any]:
    path = run / "environment.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("it must hold an object")
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} must say what the run ran on, but cannot be read: {error}. Restore it.") from None
    return values


def _hardware(environment: dict[str, Any]) -> str:
    gpus = environment.get("gpus") or []
    names = [f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus)]
    packages = environment.get("packages") or {}
    cpu = environment.get("cpu") or {}
    return "\n".join(
        [
            f"- {environment.get('world_size', 1)} process(es) on {environment.get('device', 'an unknown device')}; "
            f"each machine: {', '.join(names) or 'no GPU'}, {cpu.get('cores')} cores of {cpu.get('model')}, "
            f"{environment.get('memory_gb')} GB",
            f"- Python {environment.get('python')}, "
            + ", ".join(f"{name} {number}" for name, number in packages.items() if number and name != "xlmrxl_train"),
        ]
    )


def _licence(run: FinishedRun, licence: str | None) -> str:
    stated = f"Weights: {licence}." if licence else "Weights: **not stated**; whoever publishes them has to say."
    base, terms = run.settings.get("model.path"), run.settings.get("dataset.license")
    began = f"from {_name(str(base))}, whose terms hold too" if base else "as random numbers"
    return f"{stated} They began {began}. {run.dataset}: {terms or 'terms not known'}."
