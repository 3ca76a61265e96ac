"""The files that a finished run leaves and trackers keep: its configuration, environment, reports and model card."""

import zlib
from pathlib import Path

from xlmrxl_train.track.rows import Position

AFTER_ALL_ROWS = 2**53  # the step of such files in tracker.json
NAMES = ("config.yaml", "environment.json", "report.json", "report.md", "report.html", "model/README.md")


def final_files(folder: Path) -> tuple[list[Path], Position] | None:
    """Return the files, and the position that stands for them with this content; None where a run is not finished."""
    files = [folder / name for name in NAMES if (folder / name).is_file()]
    if folder / "report.json" not in files:
        return None
    content = 0
    for file in files:
        content = zlib.crc32(file.read_bytes(), content)
    return files, (AFTER_ALL_ROWS, content)
