"""Runs under torchrun or alone: does jobs with real pieces and saves what came out, on rank 0.

python worker.py OUT '{"<name>": ["gradients" | "scores", "<override>", ...], ...}'
"""

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from xlmrxl_train import load_config
from xlmrxl_train.config import Config
from xlmrxl_train.parallel import StepResult
from xlmrxl_train.session import Session
from xlmrxl_train.stop import StopRequest
from xlmrxl_train.track.console import Console
from xlmrxl_train.training.batches import StepBatches
from xlmrxl_train.training.checkpoint import Checkpointer
from xlmrxl_train.training.state import TrainState
from xlmrxl_train.training.trainer import Look, Trainer


def trainer_of(session: Session, config: Config) -> Trainer:
    corpus = session.corpus("train", session.train_languages)
    strategy = session.strategy(corpus)
    batches = StepBatches(
        corpus=corpus,
        task=session.task,
        seed=config.seed,
        batch_size=config.train.batch_size,
        token_budget=config.train.tokens_per_micro_batch,
        temperature=config.train.sampling_temperature,
        rank=session.world.rank,
        world_size=session.world.size,
    )
    return Trainer(
        config=config,
        strategy=strategy,
        batches=batches,
        checkpointer=Checkpointer(Path(config.run.dir) / "checkpoints", keep=1),
        console=Console(enabled=False),
        metrics=None,
        validate=lambda state: Look(),
        state=TrainState(),
        stop=StopRequest(None, print),
    )


def leave_with(results: object, file: Path) -> None:
    """Let rank 0 write what was found, and end this process, when all ranks have come so far."""
    if os.environ.get("RANK", "0") == "0":
        file.write_text(json.dumps(results))
    if dist.is_initialized():
        dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads abort now and then when a process ends while another still talks


def gradients(session: Session, config: Config) -> object:
    """Return the gradients of the epoch's last step, which is an incomplete batch."""
    trainer = trainer_of(session, config)
    kept: dict[str, torch.Tensor] = {}

    def capture(lr: float) -> StepResult:
        for name, parameter in trainer.strategy.model.named_parameters():
            if parameter.requires_grad:  # all but the words that the training set lacks
                assert parameter.grad is not None, f"{name} has no gradient"
                kept[name] = parameter.grad.clone()
        return StepResult(grad_norm=0.0, skipped=False)

    trainer.strategy.step = capture  # type: ignore[method-assign]
    step = trainer.batches.steps_per_epoch - 1
    micro_batches = trainer.batches.of_step(step)
    trainer._step(step, micro_batches, 1e-3)
    return {"gradients": kept, "micro_batches": len(micro_batches)}


def scores(session: Session, config: Config) -> object:
    """Return the scores of the test split, to the last digit."""
    evaluator = session.evaluator(session.strategy())
    result = evaluator.evaluate(session.corpus("test", session.evaluate_languages), intervals=True)
    return {code: (score.values, score.n, score.intervals) for code, score in result.items()}


def main() -> None:
    out, jobs = sys.argv[1], json.loads(sys.argv[2])
    results = {}
    for name, (what, *overrides) in jobs.items():
        config = load_config(overrides)
        session = Session.open(config)
        results[name] = {"gradients": gradients, "scores": scores}[what](session, config)
    if session.world.is_first:
        torch.save(results, out)
    session.world.barrier()
    session.world.close()


if __name__ == "__main__":
    main()
