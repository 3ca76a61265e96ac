"""What went wrong for a person, as opposed to an `assert`, which guards our own invariants.

Each of these ends a command with its message on standard error and exit code 2, without a traceback.
A message names the key, or the file and line; what was expected; what was found; what to do.
"""

FROM_FIRST_RANK = "raised on rank 0"  # a note on an exception that rank 0 reports for all ranks


class UserError(ValueError):
    """The base of every fault that a user can mend."""


class ConfigError(UserError):
    """A setting is wrong. Several faults are reported together, one line each."""

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[str, ...]]:
        return type(self), self.faults


class DataError(UserError):
    """A row, a file or a split of a data set is wrong; the message begins with file and line."""


class CheckpointError(UserError):
    """Weights or training state cannot be read or written."""


class RunError(UserError):
    """A run folder cannot be used as asked: finished, in use, of another configuration, not a run."""


class RankLostError(RuntimeError):
    """Another rank is gone or no longer answers. Nobody's mistake: exit code 1, and a launcher may start again."""
