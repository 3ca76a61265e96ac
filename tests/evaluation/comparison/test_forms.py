"""One comparison as Markdown, JSON, CSV, LaTeX and in a terminal; and the words of the command."""

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tests.evaluation.comparison.folders import right, write_run
from xlmrxl_train.cli import main
from xlmrxl_train.cli.report import print_page
from xlmrxl_train.data.languages import _table
from xlmrxl_train.evaluation.comparison.comparing import compare
from xlmrxl_train.evaluation.comparison.page import page_of
from xlmrxl_train.evaluation.comparison.reading import find_runs

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Two groups of two seeds: stand-in data in the second, one language more in the first."""
    for seed in (1, 2):
        first = {"en": right(0.9, 40), "de": right(0.7 + seed / 20, 40), "sw": right(0.5, 40)}
        write_run(Path(f"a/{seed}"), first, seed=seed, names=["accuracy", "macro_f1"])
        write_run(
            Path(f"b/{seed}"),
            {"en": right(0.8, 40), "de": right(0.6, 40)},
            seed=seed,
            names=["accuracy", "macro_f1"],
            overrides=["recipe=demo", "optimizer.lr=2e-3"],
            stand_ins=["made-up pairs | not 50 % of the real ones"],
        )
    return tmp_path


def report(*words: str) -> None:
    assert main(["report", *words]) == 0


def test_markdown(two: Path, capsys: Capture) -> None:
    report("a", "b", "--compare", "--output", "out/r.md")
    assert "written: out/r.md" in capsys.readouterr().err
    page = Path("out/r.md").read_text(encoding="utf-8")
    assert page.startswith("# sample NLI\n\n## sample NLI, test split: 4 runs, 2 configurations\n")
    assert (
        "**Stand-in data, not comparable with published scores: made-up pairs | not 50 % of the real ones (B).**"
        in page
    )
    assert "| A | tiny | zero-shot from en | en | 10 | 1, 2 | a/1 and 1 more |" in page
    assert "| optimizer.lr | 0.001 | 0.002 |" in page
    assert re.search(
        r"\| de \| German \| 77\.5 ± 3\.5 \| [\d.]+ to [\d.]+ \| 60\.0 ± 0\.0 \| [\d.]+ to [\d.]+ \| 40 \|", page
    )
    assert "| sw | Swahili | 50.0 ± 0.0 |" in page and "| not scored |  | 40 |" in page
    assert "| en | English (trained) | 90.0 ± 0.0 |" in page
    assert "The configurations scored different languages, so their averages are of different languages." in page
    assert "### Paired bootstrap: A minus B" in page
    assert re.search(r"\| de \| accuracy \| \+17\.5 \| [\d.-]+ to [\d.]+ \| 0\.\d{3} \| 40 \|", page)
    assert re.search(r"\| \*\*mean\*\* \| \*\*accuracy\*\* \| \*\*\+13\.8\*\* \|", page)
    widths = {line.count("|") for line in page.split("### accuracy")[1].split("###")[0].splitlines() if line[:1] == "|"}
    assert len(widths) == 1


def test_one_group(two: Path, capsys: Capture) -> None:
    report("a")
    page = capsys.readouterr().out
    assert "| language |  | accuracy | lowest to highest | 95 % interval | macro_f1 | n |" in page
    assert re.search(
        r"\| de \| German \| 77\.5 ± 3\.5 \| 75\.0 to 80\.0 \| [\d.]+ to [\d.]+ \| [\d.]+ ± [\d.]+ \| 40 \|", page
    )
    assert "| **transfer gap** |" in page
    report("a/1")
    page = capsys.readouterr().out
    assert "±" not in page and "test split: 1 run\n" in page


def test_two_groups_hint_at_the_test(two: Path, capsys: Capture) -> None:
    report("a/1", "b/1")
    assert "--compare tests the difference of the two." in capsys.readouterr().err


def test_of_perplexity_lower_is_better(tmp_path: Path, capsys: Capture) -> None:
    for name, loss in (("a", 2.0), ("b", 3.0)):
        words = ["recipe=demo_pretrain", f"optimizer.lr={loss}e-3"]
        write_run(tmp_path / name, {"de": ([loss] * 9 + [loss + 1], [1] * 10)}, names=["perplexity"], overrides=words)
    report("a", "b", "--compare")
    page = capsys.readouterr().out
    assert "Of perplexity, lower is better." in page
    assert re.search(r"\| de \| perplexity \| -14\.03 \| -[\d.]+ to -[\d.]+ \| 0\.002 \| 10 \|", page)


def test_json(two: Path) -> None:
    report("a", "b", "--compare", "--output=r.json")
    values = json.loads(Path("r.json").read_text(encoding="utf-8"))
    (part,) = values["datasets"]
    first, second = part["groups"]
    assert first["languages"]["de"]["accuracy"]["values"] == [0.75, 0.8] and first["languages"]["de"]["n"] == 40
    assert first["averages"]["accuracy"]["mean"]["mean"] == pytest.approx((0.9 + 0.775 + 0.5) / 3)
    assert second["stand_ins"] == ["made-up pairs | not 50 % of the real ones"]
    assert part["differing"] == {"optimizer.lr": {"A": 0.001, "B": 0.002}}
    german = next(test for test in part["paired"] if (test["language"], test["metric"]) == ("de", "accuracy"))
    assert german["difference"] == pytest.approx(0.175) and german["reason"] is None
    assert values["xtreme"] is None and values["left_out"] == []


def test_csv(two: Path) -> None:
    report("a", "b", "--compare", "--output", "r.csv")
    rows = list(csv.DictReader(io.StringIO(Path("r.csv").read_text(encoding="utf-8"))))
    (german,) = [
        row
        for row in rows
        if (row["kind"], row["group"], row["language"], row["metric"]) == ("score", "A", "de", "accuracy")
    ]
    assert float(german["score"]) == pytest.approx(0.775) and german["n"] == "40" and german["seeds"] == "1 2"
    assert (german["name"], german["script"], german["family"]) == ("German", "Latn", "Indo-European")
    kinds = {row["kind"] for row in rows}
    assert kinds == {"score", "average", "difference"}
    assert any(row["kind"] == "difference" and row["average"] == "mean" and row["p"] for row in rows)


def test_latex(two: Path) -> None:
    report("a", "b", "--compare", "--output", "r.tex")
    text = Path("r.tex").read_text(encoding="utf-8")
    assert r"made-up pairs \textbar{} not 50 \% of the real ones" in text
    assert r"de & German & 77.5 $\pm$ 3.5 &" in text and r"macro\_f1" in text
    begun, ended = re.findall(r"\\begin\{(\w+)\}", text), re.findall(r"\\end\{(\w+)\}", text)
    assert sorted(begun) == sorted(ended) and "longtable" not in begun
    for body in re.findall(r"\\begin\{tabular\}\{(\w+)\}\n(.*?)\\end\{tabular\}", text, flags=re.DOTALL):
        rows = [line for line in body[1].splitlines() if line.endswith(r"\\")]
        assert {len(re.split(r"(?<!\\)&", row)) for row in rows} == {len(body[0])}


def test_112_languages_fit(tmp_path: Path) -> None:
    """Languages are rows, so that a page of a hundred is long and not wide."""
    codes = sorted({entry.code for entry in _table().values()})[:112]
    assert len(codes) == 112
    for lr in ("1e-3", "2e-3", "3e-3", "4e-3"):
        guesses = {code: right(0.5, 10) for code in codes}
        write_run(tmp_path / "runs" / lr, guesses, overrides=["recipe=demo", f"optimizer.lr={lr}"])
    comparison = compare(find_runs(["runs"]), paired=False)
    console = Console(width=80, record=True, file=io.StringIO())
    print_page(page_of(comparison), console)
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line for line in lines if line.rstrip().endswith(" 10")]
    assert len(rows) == 112 and all(line.count("50.0") == 4 for line in rows)
    report("runs", "--output", "r.tex")
    assert r"\begin{longtable}{llrrrrr}" in Path("r.tex").read_text(encoding="utf-8")


def test_a_terminal_gets_tables_and_a_pipe_markdown(two: Path) -> None:
    command = [sys.executable, "-m", "xlmrxl_train", "report", "a"]
    piped = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "| language |" in piped.stdout
    master, slave = pty.openpty()
    environment = os.environ | {"COLUMNS": "100", "TERM": "xterm"}
    subprocess.run(command, stdout=slave, stderr=subprocess.DEVNULL, timeout=120, check=True, env=environment)
    os.close(slave)
    shown = os.read(master, 100_000).decode(errors="replace")
    os.close(master)
    assert "| language |" not in shown and "German" in shown and "─" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["a", "--output", "r.docx"],
            "--output must end with .html, .md, .json, .csv, .tex, got r.docx. The ending says what",
        ),
        (["a", "--output"], "--output must be a file, got nothing. Write --output report.md."),
        (["--compare"], "report needs run folders, got none. Write xlmrxl report runs/xnli/seed-1."),
        (["a", "--compair"], "--compair is not a flag. Did you mean --compare?"),
        (["a", "-x"], "-x is not a flag. report knows --compare, --output, --figures, --help."),
        (
            ["a", "--compare"],
            "--compare tests two runs, or two groups of seeds, against each other, got 1 of sample NLI: A",
        ),
        (["a", "--output", "a/1/config.yaml/r.md"], "--output a/1/config.yaml/r.md cannot be written: "),
    ],
)
def test_wrong_words_are_named(words: list[str], message: str, two: Path, capsys: Capture) -> None:
    assert main(["report", *words]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"error: {message}") and said.out == "" and said.err.count("\n") == 1


def test_help_of_the_command(capsys: Capture) -> None:
    assert main(["report", "--help"]) == 0
    page = capsys.readouterr().out
    assert page.startswith("usage: xlmrxl report <run folders or globs>") and "runs/xtreme" in page
    assert main(["report"]) == 2
