"""Makes the pictures of the README from runs of the packaged sample: python -m tests.browser.pictures runs/demo/*."""

import sys
import tempfile
from pathlib import Path

from tests.browser.chromium import Chromium
from xlmrxl_train.cli import main

DOCS = Path(__file__).parents[2] / "docs"


def draw(runs: list[str]) -> None:
    """Write docs/report.png (a desk, light) and docs/report_phone.png (a phone, dark)."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, Chromium(Path(folder)) as chromium:
        page = Path(folder) / "report.html"
        assert main(["report", *runs, "--output", str(page)]) == 0
        chromium.look(width=1180, height=1500)
        chromium.open(page)
        take(chromium, DOCS / "report.png")
        chromium.look(width=390, height=1000, dark=True, phone=True, scale=1.5)
        chromium.open(page)
        chromium.evaluate("document.querySelector('.heat').scrollIntoView({ behavior: 'instant' })")
        take(chromium, DOCS / "report_phone.png")


def take(chromium: Chromium, path: Path) -> None:
    """Write what is seen."""
    path.parent.mkdir(exist_ok=True)
    chromium.screenshot(path)
    assert path.stat().st_size < 300_000, path


if __name__ == "__main__":
    draw(sys.argv[1:])
