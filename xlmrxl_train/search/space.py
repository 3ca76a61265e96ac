"""What a search may draw for each key."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float
    log: bool = False  # even in the logarithm
    step: float | None = None  # low, low + step, ...; None: any number
    whole: bool = False

    @property
    def examples(self) -> tuple[str, ...]:
        """Return the ends, as a command line has them."""
        return self.text(self.low), self.text(self.high)

    def text(self, value: float) -> str:
        """Return a value as a command line has it; four digits tell two trials apart."""
        return str(round(value)) if self.whole else f"{value:.4g}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Choices:
    """Some values, as a command line has them."""

    examples: tuple[str, ...]

    def text(self, value: str) -> str:
        """Return a value as a command line has it."""
        return value


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """How values are drawn, and from what."""

    space: dict[str, Range | Choices]
    sampler: str = "tpe"  # tpe | random
    pruner: str = "median"  # median | none
    startup: int = 5  # trials drawn at random, and finished before any is pruned
    grace: int = 1  # evaluations of a trial before it may be pruned
