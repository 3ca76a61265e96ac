"""metrics.jsonl: one object per line with `event`; what later tools and dashboards read."""

import json
import math
from pathlib import Path
from typing import Any


def finite(value: Any) -> Any:
    """Return `value` with numbers that JSON cannot write (NaN, infinity) as null, also inside."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class JsonLines:
    """Appends events to a file, each visible at once."""

    def __init__(self, path: Path, *, resume_step: int) -> None:
        """Open `path`, first dropping what a run that stopped later than `resume_step` wrote of later steps."""
        if path.exists():
            kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= resume_step]
            temporary = path.with_suffix(".tmp")
            temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
            temporary.replace(path)
        self.file = path.open("a", encoding="utf-8")

    def log(self, event: str, values: dict[str, Any]) -> None:
        """Append one event."""
        self.file.write(json.dumps(finite({"event": event, **values}), ensure_ascii=False) + "\n")
        self.file.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def _step_of(line: str) -> float:
    """Return the step of a line; infinity for one that was cut off in the middle of writing."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
