"""The live view in real pseudo-terminals: what is to be seen, how often it is drawn, and what it leaves."""

import re
import signal
from pathlib import Path

import pytest

from tests.track.terminal import Session
from xlmrxl_train.track.view import Bar, View, clock, curve

LANGUAGES = "en es de el fr vi sw bg hi ur ru ar th zh tr".split()
NUMBERS = {
    "loss": 0.8312, "lr": 1e-4, "grad_norm": 1.234, "epoch": 0.5, "tokens_per_second": 29965.4, "matrix_share": 0.41,
    "memory_gb": 12.1, "gpu_memory_gb": 60.2, "input_wait": 0.02, "skipped": 2, "unchanged": 0,
}  # fmt: skip
PROGRAM = """
import logging, sys, time, warnings
logging.getLogger("other").addHandler(logging.StreamHandler())
from tests.track.test_view import LANGUAGES, NUMBERS
from xlmrxl_train.progress import progress
from xlmrxl_train.track.console import Console
console = Console()
with console.live():
    console.say("said before")
    with progress.doing("building the model"):
        time.sleep(0.6)
    with console.task("train", 2000) as advance:
        for step in range(2000):
            if step % 10 == 0:
                console.show_training({**NUMBERS, "loss": 1 - step / 3000})
                time.sleep(0.006)
            advance("a note")
            if step == 1000:
                with console.task("evaluate validation", 20) as look:
                    for _ in range(20):
                        time.sleep(0.035)
                        look()
                shown = [(code, f"{90 - place:.1f}") for place, code in enumerate(LANGUAGES)]
                console.show_scores("accuracy", averages=[("transfer gap", "12.3")], scores=shown)
                console.say("said between")
                logging.getLogger("other").warning("logged by another")
                warnings.warn("look out")
                print("printed to standard output")
console.say("said after")
"""


@pytest.mark.parametrize(("columns", "term"), [(80, "xterm"), (40, "linux"), (80, "dumb")])
def test_lines_scroll_above_the_view_which_leaves_nothing(columns: int, term: str) -> None:
    session = Session(["-c", PROGRAM], columns=columns, term=term)
    seen: list[str] = []
    session.read(lambda it: bool(seen.append(it.screen().text)))
    assert session.end() == 0
    screen = session.screen()
    lines = ["said before", "said between", "logged by another", "printed to standard output", "said after"]
    said = [line for line in screen.text.splitlines() if line and "look out" not in line and "-c" not in line]
    assert "UserWarning: look out" in screen.text.replace("\n", "")
    assert screen.cursor and {int(style or 0) for style in screen.styles} <= {0, 1, 2, *range(30, 38)}
    if term == "dumb":
        counts = ["evaluate validation 20/20  0:0_, 0:00 left", "train 2000/2000  a note  0:0_, 0:00 left"]
        said = [re.sub(r"0:0\d,", "0:0_,", line) for line in said]
        assert said == [lines[0], counts[0], *lines[1:4], counts[1], lines[4]]
        assert "\x1b" not in session.raw
        return
    assert said == lines
    training = next(text for text in seen if "tokens/s" in text and "evaluate" in text)
    assert any("building the model" in text for text in seen)
    assert re.search(r"train  ━+─+  1,0\d\d/2,000 ", training) and re.search(r"evaluate validation  .*\d+/20", training)
    for part in (
        "loss 0.6",
        "██▇",
        "lr 1.00e-04",
        "41% of the matrix peak",
        "GPU 60.2 GB",
        "memory 12.1 GB",
        "skipped 2",
    ):
        assert part in training
    later = next(text for text in reversed(seen) if "transfer gap" in text)
    assert later.index("said between") < later.index("train  ━") < later.index("en 90.0") < later.index("tr 76.0")
    drawn = [when for when, part in session.output if b"\x1b[2K" in part]
    assert len(drawn) <= 2.1 * (drawn[-1] - drawn[0]) + 7  # two a second, and with each of the lines


SLOW = PROGRAM.replace("(0.006)", "(1)")


def test_other_ranks_show_nothing() -> None:
    session = Session(["-c", PROGRAM.replace("Console()", "Console(enabled=False)").replace("(0.006)", "(0)")])
    assert session.end() == 0
    assert "tokens/s" not in session.raw and "\x1b" not in session.raw and "said" not in session.raw
    assert "logged by another" in session.raw


def test_a_process_that_is_killed_leaves_a_cursor() -> None:
    session = Session(["-c", SLOW])
    session.read(lambda it: "tokens/s" in it.screen().text)
    session.process.kill()
    assert session.end() == -signal.SIGKILL and session.screen().cursor


def test_ctrl_c_leaves_the_terminal_clean() -> None:
    session = Session(["-c", SLOW])
    session.read(lambda it: "tokens/s" in it.screen().text)
    session.press(b"\x03")
    assert session.end() == -signal.SIGINT
    screen = session.screen()
    assert screen.cursor and "tokens/s" not in screen.text and "━" not in screen.text
    assert screen.text.rstrip().endswith("KeyboardInterrupt")


def test_what_has_no_room_is_left_out() -> None:
    bar = Bar(name="train", total=1_000_000, count=250_000)
    assert "━━─" in bar.line(80, ascii_only=False).plain and "##--" in bar.line(80, ascii_only=True).plain
    assert bar.line(24, ascii_only=False).plain == "train  250,000/1,000,000"
    view = View()
    view.take(NUMBERS | {"loss": float("nan")})
    assert not any("loss" in line.plain for line in view.lines(60))
    view.take(NUMBERS)
    view.rate("accuracy", [("mean", "50.0")], [(f"language_{number}", "50.0") for number in range(122)])
    view.bars.append(bar)
    for width in (30, 40, 60, 79, 100):
        lines = list(view.lines(width))
        assert all(line.cell_len <= width for line in lines)
        shown = sum(line.plain.count("language_") for line in lines)
        left_out = re.search(r"\.\.\. (\d+) more \.\.\.", "\n".join(line.plain for line in lines))
        assert left_out and shown + int(left_out[1]) == 122 and len(lines) < 14
        assert any("language_0 " in line.plain for line in lines) and any(
            "language_121" in line.plain for line in lines
        )
    assert not set("\n".join(line.plain for line in view.lines(60, ascii_only=True))) & set("━─▁▂▃▄▅▆▇█")


def test_a_curve_is_of_means() -> None:
    assert curve([1, 2, 3, 4], 8) == "▁▃▆█" and curve([5, 5], 8) == "▁▁" and curve([0, 2, 7, 9], 2) == "▁█"
    assert len(curve(list(range(1000)), 30)) == 30
    assert [clock(seconds) for seconds in (0.4, 75.2, 3725)] == ["0:00", "1:15", "1:02:05"]


@pytest.mark.slow
def test_a_run_on_the_sample(tmp_path: Path) -> None:
    words = [
        "recipe=demo", "model.path=null", "data.limit=60", "evaluate.bootstrap=20", "train.epochs=400",
        "train.log_every=2", "evaluate.every=40", "evaluate.tokens_per_batch=130",
        "strategy.device=cpu", f"run.dir={tmp_path / 'run'}",
    ]  # fmt: skip
    session = Session(["-m", "xlmrxl_train", *words], OMP_NUM_THREADS="1")
    seen: list[str] = []
    looked = False

    def enough(session: Session) -> bool:
        nonlocal looked
        seen.append(session.screen().text)
        looked = looked or "evaluate validation" in seen[-1]  # which is quick, and not seen every time
        return looked and "transfer gap" in seen[-1] and "evaluate" not in seen[-1]

    session.read(enough, 300)
    session.press(b"\x03")
    assert session.end() == 130
    screen = session.screen()
    frame = seen[-1][seen[-1].rindex("train  ") :]
    assert re.match(r"train  ━*─+  \d+/[\d,]+  \d+:\d\d  [\d:]+ left\n", frame)
    for part in (
        "loss ",
        "lr ",
        "gradient ",
        "epoch ",
        " tokens/s",
        "% of the matrix peak",
        "memory ",
        "transfer gap ",
    ):
        assert part in frame
    assert all(re.search(rf"\b{code} \d+\.\d", frame) for code in LANGUAGES)
    assert all(len(line) < 80 for line in frame.splitlines())
    text = "\n".join(seen)
    assert "opening tokenizer, data set and weights" in text or "reading the train split" in text
    assert screen.cursor and "tokens/s" not in screen.text.split("train   ")[1]
    end = screen.text.rstrip().splitlines()
    assert re.fullmatch(r"stopped after step \d+; the same command goes on from there", end[-2])
    assert end[-1] == "interrupted" and "Ctrl-C: saving and stopping at the next step; press Ctrl-C" in screen.text


@pytest.mark.parametrize("width", [*range(1, 41), 80])
def test_there_is_no_width_that_it_cannot_take(width: int) -> None:
    assert all(len(curve(values, width - 14)) <= max(0, width - 14) for values in ([], [1.0], [1.0, 0.5] * 30))
