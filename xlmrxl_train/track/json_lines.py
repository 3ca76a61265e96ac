"""metrics.jsonl: one object per line with `event`; what later tools and dashboards read."""

import json
import math
from itertools import islice
from pathlib import Path
from typing import Any

from xlmrxl_train.track.secrets import redact


def finite(value: Any) -> Any:
    """Return `value` with numbers that JSON cannot write (NaN, infinity) as null, also inside."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class JsonLines:
    """Appends events to a file, each visible at once."""

    def __init__(self, path: Path, *, keep: int) -> None:
        """Open `path`, keeping its first `keep` lines: what came later will be computed again."""
        if path.exists():
            temporary = path.with_suffix(".partial")
            with path.open(encoding="utf-8") as old, temporary.open("w", encoding="utf-8") as new:
                new.writelines(islice(old, keep))
            temporary.replace(path)
        self.lines = keep
        self.file = path.open("a", encoding="utf-8")

    def log(self, event: str, values: dict[str, Any]) -> None:
        """Append one event."""
        self.file.write(json.dumps(redact(finite({"event": event, **values})), ensure_ascii=False) + "\n")
        self.file.flush()
        self.lines += 1

    def close(self) -> None:
        """Close the file."""
        self.file.close()
