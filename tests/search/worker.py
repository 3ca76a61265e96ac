"""A worker of a study whose trials take no time.

python worker.py FOLDER STORAGE finish TRIALS   asks and tells until there is nothing left; prints a number per trial
python worker.py FOLDER STORAGE hold            asks for one, prints its number, and waits to be killed
"""

import sys
import time
from pathlib import Path

from xlmrxl_train.config import Config
from xlmrxl_train.search.space import Choices, Range, Search
from xlmrxl_train.search.study import Outcome, Study

SEARCH = Search(
    space={
        "optimizer.lr": Range(low=1e-6, high=1e-3, log=True),
        "train.batch_size": Range(low=8, high=64, step=8, whole=True),
        "schedule.name": Choices(examples=("linear", "cosine")),
    }
)


def open_study(folder: Path, storage: str = "sqlite") -> Study:
    return Study(folder, storage, SEARCH, Config())


if __name__ == "__main__":
    study, trials = open_study(Path(sys.argv[1]), sys.argv[2]), int([*sys.argv, "100"][4])
    while claim := study.ask(trials):
        print(claim.number, flush=True)
        if sys.argv[3] == "hold":
            time.sleep(600)
        claim.trial.report(0.25, 0)
        study.tell(claim, Outcome(state="finished", score=claim.number / 100))
