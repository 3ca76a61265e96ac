"""Finished runs of a tiny model on the sample data, made once for the tests of a file."""

from pathlib import Path

from xlmrxl_train import load_config, train

WORDS = [
    "recipe=demo", "model.hidden_size=32", "model.intermediate_size=64", "model.num_hidden_layers=2",
    "model.num_attention_heads=4", "data.limit=20", "train.max_steps=2", "train.precision=fp32",
    "evaluate.bootstrap=20", "evaluate.every=0", "evaluate.languages=[en,de]",
]  # fmt: skip


def finished_run(folder: Path, seed: int = 1, *words: str) -> Path:
    """Train for two steps and return the run's folder, below `folder`."""
    run = folder / f"seed-{seed}"
    train(load_config([*WORDS, f"seed={seed}", f"run.dir={run}", f"data.cache={folder / 'cache'}", *words]))
    return run
