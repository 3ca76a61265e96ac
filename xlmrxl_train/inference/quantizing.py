"""A folder of quantized weights, and the page that says what they cost."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from xlmrxl_train.data.languages import language
from xlmrxl_train.evaluation.comparison.layout import Page, Section, Table, interval_text, signed
from xlmrxl_train.evaluation.numbers import number
from xlmrxl_train.evaluation.side_by_side import Difference, SideBySide
from xlmrxl_train.inference.export.transformers_folder import copy_tokenizer, entries_of
from xlmrxl_train.inference.model_folder import ModelFolder, check_not_quantized
from xlmrxl_train.model import QuantizationConfig
from xlmrxl_train.model.quantization import check_installed, quantized_entries


def quantize(source: ModelFolder, target: Path, config: QuantizationConfig) -> None:
    """Round the weights of a folder into another one, one matrix in memory at a time.

    Args:
        source: Its weights are not quantized.
        target: Made if missing; `from_pretrained` reads it.
        config: How weights are rounded.

    Raises:
        ConfigError: torchao is missing, the weights are quantized already, or a shape does not allow it.
        CheckpointError: The model cannot be read or written.
    """
    check_installed()
    check_not_quantized(source, "A quantized model")
    model, plain = entries_of(source)
    by_name = {entry.name: entry for entry in plain}
    entries = quantized_entries(model, config, lambda name: by_name[name].read())
    model.quantization = config
    model.write_pretrained(target, entries)
    copy_tokenizer(source, target)


def quantization_page(
    found: SideBySide, *, title: str, metrics: Sequence[str], config: QuantizationConfig, sizes: tuple[int, int],
    device: str,
) -> Page:  # fmt: skip
    """Return what quantization costs: per language, those that lose most first; then speed and memory.

    Args:
        found: Original and quantized model on the evaluation set.
        title: Of data set and split.
        metrics: Of the task, the one that orders the languages first.
        config: How weights are rounded.
        sizes: Bytes of the weights, original and quantized.
        device: Where both ran.
    """
    ordered = sorted(found.languages, key=lambda item: (-item.loss(metrics[0]), -(item.divergence or 0.0)))
    cost = Table(title="Speed and memory", columns=["", "original", "quantized"])
    cost.add("weights, MB", *(f"{size / 1e6:,.1f}" for size in sizes))
    cost.add("tokens per second", *(f"{found.tokens / max(seconds, 1e-9):,.0f}" for seconds in found.seconds))
    cost.notes.append(f"On {device}, batch by batch in turn; {found.tokens:,} tokens each.")
    section = Section(title=title, tables=[_table(ordered, metric, found) for metric in metrics] + [cost])
    section.lines.append(_described(config))
    return Page(title="What quantization costs", sections=[section])


def _described(config: QuantizationConfig) -> str:
    groups = f" in groups of {config.group_size}" if config.weights == "int4" else ", a scale per row"
    return f"Weights of the layers: {config.weights}{groups}. Embeddings: {config.embeddings}. Heads: bf16."


def _table(ordered: Sequence[Difference], metric: str, found: SideBySide) -> Table:
    table = Table(
        title=f"{metric}, worst languages first",
        columns=["language", "", "CC-100, GiB", "original", "quantized", "difference", "95 % interval", "KL", "n"],
        text_columns=2,
    )
    for item in ordered:
        known = language(item.language)
        table.add(
            item.language,
            known.name,
            "-" if known.pretraining_gib is None else f"{known.pretraining_gib:g}",
            *_cells(metric, item.original[metric], item.changed[metric]),
            interval_text(metric, item.interval.get(metric)),
            "-" if item.divergence is None else f"{item.divergence:.2g}",
            f"{item.n:,}",
        )
    means = [sum(side[metric] for side in sides) / len(ordered) for sides in
             ([item.original for item in ordered], [item.changed for item in ordered])]  # fmt: skip
    interval = interval_text(metric, found.mean_interval.get(metric))
    table.add("mean", "", "", *_cells(metric, *means), interval, "", f"{len(ordered)} languages", strong=True)
    table.notes.append(
        "Difference: quantized minus original, paired bootstrap over the same examples. "
        "KL: of the quantized model's predictions from the original's, nats per prediction."
    )
    return table


def _cells(metric: str, original: float, changed: float) -> list[str]:
    return [number(metric, original), number(metric, changed), signed(metric, changed - original)]


def plain_values(found: SideBySide, config: QuantizationConfig, sizes: tuple[int, int], device: str) -> dict[str, Any]:
    """Return the same for programs."""
    return {
        "quantization": config.to_dict(),
        "mean_interval": found.mean_interval,
        "languages": {item.language: {key: value for key, value in asdict(item).items() if key != "language"}
                      for item in found.languages},
        "weights_bytes": {"original": sizes[0], "quantized": sizes[1]},
        "seconds": {"original": found.seconds[0], "quantized": found.seconds[1]},
        "tokens": found.tokens,
        "device": device,
    }  # fmt: skip
