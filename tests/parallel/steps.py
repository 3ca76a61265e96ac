"""Runs under torchrun or alone: makes optimizer steps per job and writes the weights as a checkpoint does.

python steps.py OUT '{"<name>": {"words": ["<override>", ...], "optimizer": "sgd" | "adamw", "freeze": true}, ...}'

"load": [folder, steps] begins with the tensors of another job, which had made so many steps, and writes them back
unchanged to OUT/<name>-loaded first. "steps": how many more. "look": predict after each of them.
"""

import json
import sys
import time
from pathlib import Path

import torch
from torch._dynamo.utils import counters

from tests.parallel.worker import leave_with, trainer_of
from xlmrxl_train import load_config, session
from xlmrxl_train.parallel.tensor_files import load_tensors, save_tensors
from xlmrxl_train.session import Session
from xlmrxl_train.training.optimizer import OptimizerPlan

FROZEN = ("roberta.encoder.layer.0.", "roberta.embeddings.position_embeddings.")
build_model = session.build_model


def sgd(plan: OptimizerPlan, model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(plan.groups(model), lr=0.1)


def with_frozen(*arguments):
    """Build the model with some of its weights not trained."""
    model, source = build_model(*arguments)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(FROZEN))
    return model, source


def run(job: dict, out: Path) -> dict:
    config = load_config(job["words"])
    session.build_model = with_frozen if job.get("freeze") else build_model
    build = OptimizerPlan.build
    if job["optimizer"] == "sgd":
        OptimizerPlan.build = sgd
    try:
        opened = Session.open(config, training=True)
        trainer = trainer_of(opened, config)
    finally:
        OptimizerPlan.build = build
    strategy, first = trainer.strategy, 0
    if "load" in job:
        folder, first = job["load"]
        state = strategy.state_dict()
        load_tensors(Path(folder), state, opened.world)
        strategy.load_state_dict(state, first)
        save_tensors(out.with_name(f"{out.name}-loaded"), strategy.state_dict(), opened.world)
    numbers = range(first, first + job.get("steps", 3))
    steps = []
    for number in numbers:
        batches = trainer.batches.of_step(number)
        steps.append(trainer._step(number, batches, job.get("lr", 1e-2)))
        if job.get("look"):
            strategy.predict(batches[0].inputs)
    save_tensors(out, strategy.state_dict(), opened.world)
    return {
        "losses": [step.loss_sum / step.num_targets for step in steps],
        "norms": [step.result.grad_norm for step in steps],
        "skipped": [step.result.skipped for step in steps],
        "unchanged": [step.result.unchanged for step in steps],
        "micro_batches": len(trainer.batches.of_step(0)),
        "graphs": counters["stats"]["unique_graphs"],  # that torch has compiled so far
    }


def main() -> None:
    out, jobs = Path(sys.argv[1]), json.loads(sys.argv[2])
    results = {}
    for name, job in jobs.items():
        began = time.monotonic()
        results[name] = run(job, out / name) | {"seconds": time.monotonic() - began}
    leave_with(results, out / "results.json")


if __name__ == "__main__":
    main()
