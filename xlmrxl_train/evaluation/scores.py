"""What a model scores in one language."""

from dataclasses import dataclass, field


@dataclass(kw_only=True, slots=True)
class LanguageScore:
    """What a model scores in one language."""

    values: dict[str, float]  # metric -> score
    n: int  # examples
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)  # metric -> 95 % bootstrap interval
    constant: bool = False  # all examples got the same prediction, though not all have the same reference
