"""Where training stands: everything beside tensors that a checkpoint holds."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(kw_only=True, slots=True)
class TrainState:
    """Counters of a run. With the configuration they determine all that is to come."""

    step: int = 0  # optimizer steps done, skipped ones included; also the number of the next step
    skipped: int = 0  # steps that changed no weight because loss or gradient was not finite
    skipped_in_a_row: int = 0
    unchanged: int = 0  # steps that changed no weight for no reason known: an engine's silence, or a rate too small
    tokens: int = 0  # real tokens seen, over all ranks
    loss_sum: float = 0.0  # over all targets since the last line of the log
    num_targets: float = 0.0  # likewise
    best_step: int | None = None  # the step whose checkpoint scored best on the selection split
    best_score: float | None = None
    patience_score: float | None = None  # the last score that was better by more than train.min_delta is
    patience_used: int = 0  # validations in a row since then
    validated_step: int = 0  # the last step after which the validation split was scored
    metrics_lines: int = 0  # lines of metrics.jsonl when the checkpoint was written

    @property
    def updates(self) -> int:
        """Return the number of steps that changed weights, which Adam's bias correction counts."""
        return self.step - self.skipped

    def weigh(self, score: float | None, min_delta: float) -> None:
        """Count validations in a row whose score is none, or not above the one before them by more than `min_delta`."""
        if score is not None and (self.patience_score is None or score > self.patience_score + min_delta):
            self.patience_score, self.patience_used = score, 0
        else:
            self.patience_used += 1

    def to_dict(self) -> dict[str, Any]:
        """Return the counters as JSON holds them."""
        return asdict(self)
