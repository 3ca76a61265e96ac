"""Predictions on disk: one JSON object per example, in the data set's order, written as they come.

{"id": ..., what the task says of the example, "statistics": {metric: [numbers]}}; `metrics.load(metric).fold` of all
rows is the score, so that intervals, paired tests and other cuts of the examples need no model.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np


class PredictionFile:
    """Lines in any order, which `close` puts into theirs; 16 bytes per example are held meanwhile."""

    def __init__(self, path: Path, num_examples: int) -> None:
        """Begin `path` under another name, which it has until it is whole."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._unsorted = path.with_name(f".{path.name}.unsorted.partial")
        self._stream = self._unsorted.open("w+b")
        self._spans = np.zeros((num_examples, 2), dtype=np.int64)  # begin and length of each example's line

    def add(self, example: int, values: dict[str, Any]) -> None:
        """Write the line of one example."""
        line = (json.dumps(values, ensure_ascii=False) + "\n").encode()
        self._spans[example] = self._stream.tell(), len(line)
        self._stream.write(line)

    def close(self) -> None:
        """Write the lines in order and give the file its name."""
        temporary = self.path.with_name(f".{self.path.name}.partial")
        with self._stream, temporary.open("wb") as stream:
            for begin, length in self._spans.tolist():
                self._stream.seek(begin)
                stream.write(self._stream.read(length))
        temporary.replace(self.path)
        self._unsorted.unlink()

    def discard(self) -> None:
        """Remove what was written so far; after `close` there is nothing to remove."""
        self._stream.close()
        self._unsorted.unlink(missing_ok=True)
