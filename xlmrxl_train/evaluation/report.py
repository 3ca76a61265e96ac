"""The result of a run: report.json for programs, report.md for people."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from xlmrxl_train.data.languages import language as describe
from xlmrxl_train.evaluation.numbers import number
from xlmrxl_train.evaluation.protocol import Protocol
from xlmrxl_train.evaluation.scores import LanguageScore


@dataclass(kw_only=True, slots=True)
class Report:
    """Scores per language, their averages, and how they came about."""

    protocol: Protocol
    languages: dict[str, LanguageScore]
    metrics: list[str]
    notes: list[str] = field(default_factory=list)  # what else must be known to compare the scores
    extra: dict[str, Any] = field(default_factory=dict)

    def averages(self) -> dict[str, dict[str, float | None]]:
        """Return, per metric, the mean over languages, that without the training languages, and the transfer gap."""
        if not self.languages:
            return {}
        trained = [code for code in self.languages if self.protocol.is_trained_on(code)]
        others = [code for code in self.languages if code not in trained]
        result: dict[str, dict[str, float | None]] = {}
        for metric in self.metrics:
            score = {code: item.values[metric] for code, item in self.languages.items()}
            on_trained = mean(score[code] for code in trained) if trained else None
            on_others = mean(score[code] for code in others) if others else None
            result[metric] = {
                "mean": mean(score.values()),
                "mean_without_training_languages": on_others,
                "transfer_gap": on_trained - on_others if on_trained is not None and on_others is not None else None,
            }
        return result

    def to_dict(self) -> dict[str, Any]:
        """Return what report.json holds."""
        return {
            "languages": {
                code: {
                    **score.values,
                    "n": score.n,
                    "interval": {name: list(bounds) for name, bounds in score.intervals.items()},
                }
                for code, score in self.languages.items()
            },
            "averages": self.averages(),
            "gap": {metric: values["transfer_gap"] for metric, values in self.averages().items()},
            "metrics": self.metrics,
            "setting": self.protocol.setting(list(self.languages)),
            "notes": self.notes,
            "protocol": asdict(self.protocol),
            **self.extra,
        }

    def write(self, folder: Path) -> None:
        """Write report.md and then report.json, whose presence means that the run is finished."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in (
            ("report.md", self.to_markdown()),
            ("report.json", json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n"),
        ):
            temporary = folder / f".{name}.partial"
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(folder / name)

    def to_markdown(self) -> str:
        """Return the report as a page of Markdown."""
        protocol, head = self.protocol, self.metrics[0]
        lines = [f"# {protocol.dataset}, {protocol.split} split: {protocol.recipe} with {protocol.model}", ""]
        if protocol.stand_ins:
            lines += ["**Stand-in training data**, so not comparable with published scores:", ""]
            lines += [f"- {text}" for text in protocol.stand_ins] + [""]
        if protocol.limit:
            lines += [f"**data.limit={protocol.limit}**: only the first examples of each split and language.", ""]
        lines += [f"Setting: {self.protocol.setting(list(self.languages))}.", ""]
        lines += [f"- {note}" for note in self.notes] + [""] * bool(self.notes)
        if not self.languages:
            return "\n".join([*lines, "Nothing was evaluated.", ""])
        lines += ["| language | | script | family | " + " | ".join(self.metrics) + " | 95 % interval | n |"]
        lines += ["| --- | --- | --- | --- |" + " ---: |" * len(self.metrics) + " --- | ---: |"]
        for code, score in self.languages.items():
            entry = describe(code)
            values = " | ".join(number(name, score.values[name]) for name in self.metrics)
            bounds = score.intervals.get(head)
            span = f"{number(head, bounds[0])} to {number(head, bounds[1])}" if bounds else ""
            shots = len(protocol.shots.get(code, {}).get("ids", ()))
            mark = " (trained)" if protocol.is_trained_on(code) else f" ({shots} shots)" if shots else ""
            lines.append(
                f"| {code} | {entry.name}{mark} | {entry.script} | {entry.family} | {values} | {span} | {score.n} |"
            )
        lines += ["", "| average | " + " | ".join(self.metrics) + " |", "| --- |" + " ---: |" * len(self.metrics)]
        averages = self.averages()
        for name in ("mean", "mean_without_training_languages", "transfer_gap"):
            cells = (number(metric, averages[metric][name]) for metric in self.metrics)
            lines.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} |")
        if not protocol.train_languages and not protocol.shots:
            return "\n".join([*lines, "", *protocol.notes(), ""])
        selected = (
            f"best {protocol.select_metric} on the {protocol.select_split} split of "
            f"{', '.join(protocol.select_languages)}"
            if protocol.select_split
            else "the last step"
        )
        lines += [
            "",
            f"Trained on {protocol.trained_on()} ({protocol.source}), {protocol.steps:,} steps, "
            f"{protocol.tokens:,} tokens, seed {protocol.seed}. "
            f"Checkpoint of step {protocol.selected_step:,}: {selected}.",
            *protocol.notes(),
            "",
        ]
        return "\n".join(lines)
