"""What is done with the models of finished runs: averaged, quantized, and scored beside what they were made of."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

from xlmrxl_train.config import Config, LoraTuningConfig
from xlmrxl_train.errors import ConfigError, DataError
from xlmrxl_train.evaluation.comparison.layout import Page
from xlmrxl_train.evaluation.comparison.markdown import to_markdown
from xlmrxl_train.evaluation.comparison.reading import read_run
from xlmrxl_train.evaluation.report import Report
from xlmrxl_train.evaluation.side_by_side import compare_models
from xlmrxl_train.inference.averaging import average, check_alike, find_models, mean_of
from xlmrxl_train.inference.export.transformers_folder import copy_tokenizer
from xlmrxl_train.inference.model_folder import ModelFolder, new_folder, open_model_folder, whole_or_nothing
from xlmrxl_train.inference.quantizing import plain_values, quantization_page, quantize
from xlmrxl_train.inference.soup import merged, soup_page
from xlmrxl_train.lineage import protocol_of
from xlmrxl_train.model import QuantizationConfig
from xlmrxl_train.model.quantized_weights import num_bytes
from xlmrxl_train.model.writing import TensorEntry
from xlmrxl_train.run import score
from xlmrxl_train.session import Session
from xlmrxl_train.track.json_lines import finite
from xlmrxl_train.track.secrets import redact
from xlmrxl_train.training.checkpoint import Checkpointer, verify
from xlmrxl_train.training.export import weights_in
from xlmrxl_train.training.folder import RunFolder, writing


def average_models(
    words: Sequence[str], output: str | Path, *, evaluate: bool = False
) -> tuple[list[str], Page | None]:
    """Average models tensor by tensor into the layout of a run, so that every command takes it as one.

    Args:
        words: Model folders, run folders and globs.
        output: A new folder; weights and tokenizer lie in its `model/`.
        evaluate: Whether to score the average on the test set of the runs that its parts came from.

    Returns:
        What was written, one line each; and with `evaluate` the table of scores.

    Raises:
        ConfigError: The models cannot be averaged, or the output is there already.
        CheckpointError: Weights cannot be read or written.
        RunError: A run has no readable report.
    """
    target = new_folder(str(output))
    parts = find_models(words)
    check_alike(parts)
    runs = [part.run for part in parts if part.run is not None]
    if evaluate:
        _check_one_test_set(parts)
    with whole_or_nothing(target):
        average(parts, target / "model")
    lines = [f"written: {target / 'model'}, the mean of {len(parts)} models"]
    if len(runs) < len(parts):
        without = next(part.path for part in parts if part.run is None)
        return [
            *lines,
            f"no report: {without} belongs to no finished run, so what it was trained on is not known",
        ], None
    protocol = merged([protocol_of(run) for run in runs])
    notes = [f"The mean of the weights of {', '.join(run.name for run in runs)}."]
    with writing(target):
        _write_config(runs[0], target)
        shutil.copyfile(runs[0] / "environment.json", target / "environment.json")
        if not evaluate:
            Report(
                protocol=protocol, languages={}, metrics=read_run(runs[0], must_score=False).metrics, notes=notes
            ).write(target)
    if not evaluate:
        return [*lines, f"written: {target / 'report.json'}, without scores; --evaluate adds them"], None
    score(_config(target), protocol, target / "model", target, notes)
    return lines, soup_page(read_run(target), [read_run(run) for run in runs])


def average_checkpoints(
    place: str, output: str | Path, *, last: int, evaluate: bool = False
) -> tuple[list[str], Page | None]:
    """Average the last checkpoints of one run into a run folder, as `average_models` does with models.

    Args:
        place: A finished run.
        output: A new folder.
        last: How many checkpoints, at least 2.
        evaluate: Whether to score the average beside the last checkpoint on the run's test set.

    Returns:
        As `average_models`.

    Raises:
        ConfigError: The run has trained an adapter, or keeps fewer checkpoints; or the output is there already.
        CheckpointError: A checkpoint is damaged, or weights cannot be written.
        RunError: The run has no readable report.
    """
    target, source = new_folder(str(output)), open_model_folder(place)
    if source.run is None:
        raise ConfigError(f"--last needs a finished run, whose checkpoints it averages, got {place}. Name its folder.")
    config, trained = _config(source.run), protocol_of(source.run)
    if isinstance(config.tuning, LoraTuningConfig):
        raise ConfigError(
            f"--last needs a run that trained the model itself, got tuning={config.tuning.name}. "
            "Average models of finished runs: leave --last out."
        )
    checkpoints = Checkpointer(source.run / "checkpoints", keep=1)
    steps = checkpoints.steps()[-config.train.keep_checkpoints :]  # an earlier one was the best, and not a neighbour
    if last > len(steps):
        raise ConfigError(
            f"--last must be at most {len(steps)}, the last checkpoints that {source.run} has, got {last}. "
            "Train with train.checkpoint_every, and train.keep_checkpoints so high."
        )
    steps = steps[-last:]
    for step in steps:
        verify(checkpoints.path(step))
    if config.train.patience is None:  # else the validation split has said where training ended
        trained = replace(trained, select_split=None, select_languages=[])
    trained = replace(trained, selected_step=steps[-1])
    averaged = replace(trained, recipe=f"{trained.recipe}, average of the last {last} checkpoints")
    notes = [f"The mean of the weights after steps {', '.join(map(str, steps))} of {source.run.name}."]
    weights = [weights_in(checkpoints.path(step)) for step in steps]
    with whole_or_nothing(target):
        _write_run(source, mean_of(weights), target)
        lines = [f"written: {target / 'model'}, the mean of {last} checkpoints"]
        if not evaluate:
            Report(protocol=averaged, languages={}, metrics=read_run(source.run, must_score=False).metrics,
                   notes=notes).write(target)  # fmt: skip
            return [*lines, f"written: {target / 'report.json'}, without scores; --evaluate adds them"], None
    score(_config(target), averaged, target / "model", target, notes)
    beside = source.run
    if protocol_of(source.run).selected_step != steps[-1]:  # its report is of another checkpoint
        beside = target / "last"
        _write_run(source, weights[-1], beside)
        score(_config(beside), trained, beside / "model", beside)
        shutil.rmtree(beside / "model")
    return lines, soup_page(read_run(target), [read_run(beside)], "the last checkpoint")


def _write_run(source: ModelFolder, weights: list[TensorEntry], target: Path) -> None:
    """Write other weights of a run's model into a run folder."""
    assert source.run is not None
    with torch.device("meta"):
        model = source.model_class(source.config)
    model.write_pretrained(target / "model", weights)
    copy_tokenizer(source, target / "model")
    with writing(target):
        _write_config(source.run, target)
        shutil.copyfile(source.run / "environment.json", target / "environment.json")


def _check_one_test_set(parts: Sequence[ModelFolder]) -> None:
    for part in parts:
        if part.run is None:
            raise ConfigError(
                f"--evaluate needs models of finished runs, whose test set it scores, got {part.path}. "
                "Leave --evaluate out, or name run folders."
            )
    sets = {(run.dataset, run.split) for part in parts if part.run for run in [read_run(part.run)]}
    if len(sets) > 1:
        named = ", ".join(f"{dataset} {split}" for dataset, split in sorted(sets))
        raise ConfigError(f"--evaluate needs runs of one test set, got {named}. Leave --evaluate out.")


def _write_config(run: Path, target: Path) -> None:
    """Write the configuration of a run as that of its average: what to evaluate on, and how."""
    values = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    values["run"] |= {"dir": str(target), "name": target.name}
    (target / "config.yaml").write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _config(run: Path) -> Config:
    return RunFolder(run).read_config()


def quantize_model(
    place: str, output: str | Path, *, weights: str, group_size: int = 128, embeddings: str = "bf16",
    evaluate: bool = True,
) -> tuple[list[str], Page | None]:  # fmt: skip
    """Quantize a model, and show per language what that costs on the test set of its run.

    Args:
        place: A run folder, a folder or a Hub id.
        output: A new folder.
        weights: int8 or int4, as in `QuantizationConfig`; and so are the next two.
        group_size: Of int4.
        embeddings: bf16 or int8.
        evaluate: Whether to score both models; only a run says on what.

    Returns:
        What was written, one line each; and the table, which also lies in the folder as quantization.md and .json.

    Raises:
        ConfigError: A package is missing, the output is there already, or the model cannot be quantized so.
        CheckpointError: Weights cannot be read or written.
        RunError: The run cannot be read.
    """
    quantization = QuantizationConfig(weights=weights, group_size=group_size, embeddings=embeddings)
    source, target = open_model_folder(place), new_folder(str(output))
    with whole_or_nothing(target):
        quantize(source, target, quantization)
    sizes = _size_on_disk(source.path), _size_on_disk(target)
    lines = [f"written: {target}, {sizes[1] / 1e6:,.1f} MB of weights; {source.path} has {sizes[0] / 1e6:,.1f} MB"]
    if source.run is None:
        return [*lines, f"not scored: {source.path} belongs to no finished run, which would say on what"], None
    if not evaluate:
        return [*lines, "not scored, as asked: what it costs in each language is not known"], None
    try:
        page, values = _cost(source, target, quantization)
    except DataError as error:  # a run that was not scored either may have no test set
        return [*lines, f"not scored: {error}"], None
    with writing(target):
        (target / "quantization.md").write_text(redact(to_markdown(page)), encoding="utf-8")
        (target / "quantization.json").write_text(json.dumps(finite(values), indent=1) + "\n", encoding="utf-8")
    return [*lines, f"written: {target / 'quantization.md'}, quantization.json"], page


def _size_on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for pattern in ("*.safetensors", "*.bin") for path in folder.glob(pattern))


def _cost(source: ModelFolder, target: Path, quantization: QuantizationConfig) -> tuple[Page, dict[str, Any]]:
    """Score the original and the quantized model beside each other."""
    assert source.run is not None
    config = RunFolder(source.run).read_config()
    config.model.path = config.tokenizer.path = str(source.path)
    session = Session.open(config, training=False)
    with session.at_work():
        corpus = session.corpus("test", session.evaluate_languages)
        device = session.world.device
        dtype = torch.float32 if config.train.precision == "fp32" else torch.bfloat16
        models = [
            source.model_class.from_pretrained(source.path, dtype=dtype, device=device),
            source.model_class.from_pretrained(target, device=device),
        ]
        for model in models:
            encoder = getattr(model, "roberta", model)
            encoder.residual_dtype = torch.float32  # as in the run
        sizes = tuple(sum(num_bytes(parameter) for parameter in model.parameters()) for model in models)
        found = compare_models(
            *models,
            task=session.task,
            corpus=corpus,
            tokens_per_batch=config.evaluate.tokens_per_batch,
            resamples=config.evaluate.bootstrap,
            device=device,
            console=session.console,
        )
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
        page = quantization_page(
            found,
            title=f"{config.dataset.name}, test split",
            metrics=session.task.metrics,
            config=quantization,
            sizes=(sizes[0], sizes[1]),
            device=name,
        )
        return page, plain_values(found, quantization, (sizes[0], sizes[1]), name)
