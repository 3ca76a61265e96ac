"""Runs under torchrun or alone: goes back to a checkpoint in the middle of a run, as training does to the best one.

python reload.py OUT '{"<name>": {"words": ["<override>", ...]}, ...}'
"""

import json
import sys
from pathlib import Path

from tests.parallel.worker import leave_with, trainer_of
from xlmrxl_train import load_config
from xlmrxl_train.parallel.tensor_files import load_tensors, save_tensors
from xlmrxl_train.session import Session


def run(job: dict, folder: Path) -> dict:
    config = load_config(job["words"])
    opened = Session.open(config)
    trainer = trainer_of(opened, config)
    strategy, [batch, *_] = trainer.strategy, trainer.batches.of_step(0)

    def logits() -> list[float]:
        return strategy.predict(batch.inputs).logits.float().flatten().tolist()

    trainer._step(0, trainer.batches.of_step(0), 1e-2)
    saved = logits()  # before the checkpoint, as a validation is
    save_tensors(folder, strategy.state_dict(), opened.world)
    dtypes = {str(tensor.dtype) for tensor in strategy.state_dict().values()}
    for number in (1, 2, 3):
        trainer._step(number, trainer.batches.of_step(number), 1e-2)
    later = logits()
    state = strategy.state_dict()
    load_tensors(folder, state, opened.world)
    strategy.load_state_dict(state, 1)
    return {"saved": saved, "later": later, "loaded": logits(), "dtypes": sorted(dtypes)}


def main() -> None:
    out, jobs = Path(sys.argv[1]), json.loads(sys.argv[2])
    results = {name: run(job, out / name) for name, job in jobs.items()}
    leave_with(results, out / "results.json")


if __name__ == "__main__":
    main()
