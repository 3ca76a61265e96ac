"""The same search as a sweep of Weights & Biases, whose agents start the same command line."""

from collections.abc import Sequence
from typing import Any

import yaml

from xlmrxl_train.config import Config
from xlmrxl_train.search.space import Choices, Range, Search


def wandb_sweep(search: Search, config: Config, command: Sequence[str]) -> dict[str, Any]:
    """Return what `wandb sweep` reads.

    The name of a run is made of its values: an agent knows a run's id only after it has written the command line.

    Args:
        search: What is drawn.
        config: Of all trials.
        command: Of a trial, without what is drawn.
    """
    name = ",".join(f"${{{key}}}" if "." in key else f"${{{key}.name}}" for key in search.space)
    sweep: dict[str, Any] = {
        "program": "xlmrxl_train",
        "project": config.tracker.project,
        "method": "random" if search.sampler == "random" else "bayes",
        "metric": {"name": "selection/score", "goal": "maximize"},
        "parameters": {key: _parameter(drawn) for key, drawn in search.space.items()},
        "command": ["${env}", *command, f"run.name='wandb/{name}'", "${args_no_hyphens}"],
    }
    if config.tracker.entity:
        sweep["entity"] = config.tracker.entity
    if search.pruner != "none":
        sweep["early_terminate"] = {"type": "hyperband", "min_iter": search.grace + 1}
    return sweep


def _parameter(drawn: Range | Choices) -> dict[str, Any]:
    if isinstance(drawn, Choices):
        return {"values": [_value(text) for text in drawn.examples]}
    low, high, step = (
        int(value) if drawn.whole and value is not None else value for value in (drawn.low, drawn.high, drawn.step)
    )
    if drawn.log:
        return {
            "distribution": "q_log_uniform_values" if drawn.whole else "log_uniform_values",
            "min": low,
            "max": high,
        } | ({"q": 1} if drawn.whole else {})
    if step is not None:
        return {"distribution": "q_uniform", "min": low, "max": high, "q": step}
    return {"distribution": "int_uniform" if drawn.whole else "uniform", "min": low, "max": high}


def _value(text: str) -> Any:
    """Return a choice as a number where an agent writes that as we would."""
    value = yaml.safe_load(text)
    return value if isinstance(value, int | float) and str(value) == text else text
