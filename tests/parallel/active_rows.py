"""Runs under torchrun or alone: trains in English, saves a checkpoint, and predicts in other languages.

python active_rows.py OUT '{"<name>": {"words": ["<override>", ...], "steps": 20}, ...}'

Also notes the largest tensor that ranks gathered in the first steps, in prediction, and in the steps after it.
"""

import json
import sys
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.parallel.worker import leave_with, trainer_of
from xlmrxl_train import load_config
from xlmrxl_train.session import Session
from xlmrxl_train.training.checkpoint import Checkpointer
from xlmrxl_train.training.state import TrainState

LANGUAGES = ["en", "de", "zh", "hi"]


class Gathered(TorchDispatchMode):
    """Notes the elements of the largest tensor of an all-gather."""

    largest = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        if "allgather" in str(function):
            sizes = [item.numel() for item in tree_leaves(arguments) if isinstance(item, torch.Tensor)]
            self.largest = max(self.largest, *sizes)
        return function(*arguments, **(options or {}))


def run(job: dict, folder: Path) -> dict:
    config = load_config(job["words"])
    opened = Session.open(config, training=True)
    trainer = trainer_of(opened, config)
    strategy, steps, last = trainer.strategy, [], job["steps"] - 2

    def train(numbers: range) -> int:
        with Gathered() as gathered:
            for number in numbers:
                steps.append(trainer._step(number, trainer.batches.of_step(number), 1e-3))
        return gathered.largest

    gathered = [train(range(last))]
    with Gathered() as in_prediction:
        for _ in range(3):  # DeepSpeed prefetches what it has seen used in the same order before
            strategy.predict(trainer.batches.of_step(0)[0].inputs)
    gathered += [in_prediction.largest, train(range(last, job["steps"]))]
    Checkpointer(folder, keep=1).save(strategy, TrainState(step=job["steps"]))
    test = opened.corpus("test", LANGUAGES)
    opened.evaluator(strategy).evaluate(test, intervals=False, folder=folder)
    features, places = test.features([int(start) for start in test.starts[:-1]])
    logits = strategy.predict(opened.task.collate(features, places, draw=0).inputs).logits
    return {
        "losses": [step.loss_sum / step.num_targets for step in steps],
        "norms": [step.result.grad_norm for step in steps],
        "logits": logits.float().tolist(),
        "gathered": gathered,
        "frozen": sum(strategy.shapes[name].numel() for name in strategy.shapes.keys() - strategy.trainable),
    }


def main() -> None:
    out, jobs = Path(sys.argv[1]), json.loads(sys.argv[2])
    results = {name: run(job, out / name) for name, job in jobs.items()}
    leave_with(results, out / "results.json")


if __name__ == "__main__":
    main()
