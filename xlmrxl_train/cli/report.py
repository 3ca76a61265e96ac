"""`xlmrxl report`: finished runs side by side, in the terminal or as a file."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from xlmrxl_train.errors import ConfigError
from xlmrxl_train.evaluation.comparison.comparing import Comparison, compare
from xlmrxl_train.evaluation.comparison.layout import Page, Table
from xlmrxl_train.evaluation.comparison.markdown import to_markdown
from xlmrxl_train.evaluation.comparison.page import page_of
from xlmrxl_train.evaluation.comparison.reading import find_runs
from xlmrxl_train.evaluation.comparison.writing import check_output, write
from xlmrxl_train.evaluation.drawing import check_figures, draw
from xlmrxl_train.spelling import did_you_mean
from xlmrxl_train.track.secrets import redact

EXAMPLES = """\
  xlmrxl report 'runs/xnli/*'                      seeds of one configuration are folded, others stand side by side
  xlmrxl report runs/xnli/seed-1 runs/other --compare
                                                   paired bootstrap between two runs, or two groups of seeds
  xlmrxl report runs/xtreme                        every run below a folder; XTREME's tasks make its table
  xlmrxl report runs/xnli --output report.html     one page with figures, for a browser without a network
  xlmrxl report runs/xnli --output report.md       also .json, .csv, .tex; --output may be given several times
  xlmrxl report runs/xnli --figures figures/       scores, languages by step, transfer, curves as PNG, SVG and PDF"""
_FLAGS = ("--compare", "--output", "--figures", "--help")
_NO_FILE = "--output must be a file, got nothing. Write --output report.md."
_NO_FOLDER = "--figures must be a folder, got nothing. Write --figures figures/."
_NOTHING = {"--output": _NO_FILE, "-o": _NO_FILE, "--figures": _NO_FOLDER}


@dataclass(kw_only=True, slots=True)
class Arguments:
    """The words of the command."""

    folders: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    figures: str | None = None
    compare: bool = False


def main(words: Sequence[str]) -> int:
    """Print or write the report; return 1 where a run was left out because it is not finished.

    Raises:
        ConfigError: A word is wrong.
        RunError: Runs cannot be read or stand together.
    """
    arguments = _read(words)
    if not arguments.folders:
        raise ConfigError("report needs run folders, got none. Write xlmrxl report runs/xnli/seed-1.")
    for path in arguments.outputs:
        check_output(path)
    if arguments.figures:
        check_figures(arguments.figures)
    html = any(path.endswith(".html") for path in arguments.outputs)
    comparison = compare(find_runs(arguments.folders), paired=arguments.compare, paired_if_two=html)
    for line in comparison.left_out:
        print(f"note: {redact(line)}", file=sys.stderr)
    for path in arguments.outputs:
        write(comparison, path)
        print(f"written: {path}", file=sys.stderr)
    if arguments.figures:
        drawn = draw(comparison, arguments.figures)
        print(f"written: {len(drawn)} files in {arguments.figures}", file=sys.stderr)
    elif not arguments.outputs:
        show(comparison)
    return 1 if comparison.left_out else 0


def show(comparison: Comparison) -> None:
    """Print to a terminal, or Markdown to whatever else standard output is."""
    show_page(page_of(comparison, brief=True))
    if comparison.xtreme:
        print("Each task with intervals: --output report.md", file=sys.stderr)
    elif not comparison.parts[0].paired and len(comparison.parts[0].groups) == 2:
        print("--compare tests the difference of the two.", file=sys.stderr)


def show_page(page: Page) -> None:
    """Print a page to a terminal, or Markdown to whatever else standard output is."""
    if sys.stdout.isatty():
        print_page(page, Console(highlight=False))
    else:
        print(redact(to_markdown(page)))


def print_page(page: Page, console: Console) -> None:
    """Print a page with rich."""
    for section in page.sections:
        console.print(Text(redact(section.title), style="bold underline"))
        for warning in section.warnings:
            console.print(Text(redact(warning), style="yellow"))
        for line in section.lines:
            console.print(Text(redact(line)))
        for table in section.tables:
            console.print()
            console.print(_rich(table))
            for note in table.notes:
                console.print(Text(redact(note), style="dim"))
        console.print()


def _rich(table: Table) -> RichTable:
    shown = RichTable(title=Text(table.title, style="bold"), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(table.columns):
        words = index < table.text_columns
        shown.add_column(Text(name), justify="left" if words else "right", overflow="fold", no_wrap=not words)
    for index, row in enumerate(table.rows):
        starts = index in table.strong and index - 1 not in table.strong
        if starts and shown.row_count:
            shown.add_section()
        shown.add_row(*(Text(redact(cell)) for cell in row), style="bold" if index in table.strong else None)
        if index in table.strong and index + 1 not in table.strong:
            shown.add_section()
    return shown


def _read(words: Sequence[str]) -> Arguments:
    arguments, rest, faults = Arguments(), list(words), []
    while rest:
        word = rest.pop(0)
        flag, equals, value = word.partition("=")
        if word == "--compare":
            arguments.compare = True
        elif flag in ("--output", "-o", "--figures"):
            path = value if equals else (rest.pop(0) if rest else "")
            if not path:
                faults.append(_NOTHING[flag])
            elif flag == "--figures":
                arguments.figures = path
            else:
                arguments.outputs.append(path)
        elif word.startswith("-"):
            known = f"report knows {', '.join(_FLAGS)}."
            faults.append(f"{word} is not a flag. {did_you_mean(flag, _FLAGS, known)}")
        else:
            arguments.folders.append(word)
    if faults:
        raise ConfigError(*faults)
    return arguments
