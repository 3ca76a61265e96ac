"""Where training stands: everything beside tensors that a checkpoint holds."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(kw_only=True, slots=True)
class TrainState:
    """Counters of a run. With the configuration they determine all that is to come."""

    step: int = 0  # optimizer steps done, skipped ones included; also the number of the next step
    skipped: int = 0  # steps that changed no weight because loss or gradient was not finite
    skipped_in_a_row: int = 0
    tokens: int = 0  # real tokens seen, over all ranks
    seconds: float = 0.0  # of training, without evaluation, over all sessions of the run
    best_step: int | None = None  # the step whose checkpoint scored best on the selection split
    best_score: float | None = None

    @property
    def updates(self) -> int:
        """Return the number of steps that changed weights, which Adam's bias correction counts."""
        return self.step - self.skipped

    def to_dict(self) -> dict[str, Any]:
        """Return the counters as JSON holds them."""
        return asdict(self)
