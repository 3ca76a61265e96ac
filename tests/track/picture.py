"""Makes docs/live.svg from a real run on the sample: python -m tests.track.picture runs/demo_pretrain/seed-1."""

import io
import re
import sys
import tempfile
from pathlib import Path

from rich.console import CONSOLE_SVG_FORMAT, Console
from rich.text import Text

from tests.track.terminal import REPOSITORY, Session

COLUMNS = 80
SHOWN_ROWS = 9  # of what was said before


def draw(model: Path) -> None:
    """Train the demo's second stage in a terminal, and draw what is seen at its second look at the validation split."""
    with tempfile.TemporaryDirectory() as folder:
        name = Path("runs/demo_pretrain/seed-1")
        (Path(folder) / name).parent.mkdir(parents=True)
        (Path(folder) / name).symlink_to(model.resolve())
        words = ["recipe=demo", f"model.path={name}"]
        session = Session(["-m", "xlmrxl_train", *words], columns=COLUMNS, folder=Path(folder))
        session.read(
            lambda it: bool(re.search(r"step 190.*evaluate validation .* left", it.screen().text, re.DOTALL)), 600
        )
        session.press(b"\x03")
        frame = session.raw.rpartition("\x1b[2K")[2]
        above = session.screen().text.partition("train  ")[0].splitlines()[-SHOWN_ROWS:]
        session.press(b"\x03")
        session.end()
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print("\n".join(above), highlight=False, markup=False, soft_wrap=True)
    console.print(Text.from_ansi(frame.replace("\r\n", "\n")), end="\n\n")
    form = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)  # it would ask the network
    picture = console.export_svg(title=f"python -m xlmrxl_train {' '.join(words)}", code_format=form, unique_id="live")
    assert "url(" not in picture.replace("url(#", "") and len(picture) < 60_000
    (REPOSITORY / "docs" / "live.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
