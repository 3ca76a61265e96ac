"""A comparison as one HTML file: opens from disk, asks no network, and says so to the browser."""

import base64
import gzip
import hashlib
from collections import Counter
from functools import lru_cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from xlmrxl_train import metrics
from xlmrxl_train.data.languages import language as describe
from xlmrxl_train.errors import RunError
from xlmrxl_train.evaluation.comparison.comparing import Comparison, Part, compare
from xlmrxl_train.evaluation.comparison.page import page_of
from xlmrxl_train.evaluation.comparison.reading import Found, read_run
from xlmrxl_train.evaluation.html import figures
from xlmrxl_train.evaluation.html.history import read_history
from xlmrxl_train.evaluation.html.markup import script_data, shown, tag_of
from xlmrxl_train.evaluation.html.mistakes import Mistakes, classes_of, mistakes_of
from xlmrxl_train.evaluation.html.protocol_card import protocol_card
from xlmrxl_train.evaluation.html.scores import score_table, tiles
from xlmrxl_train.track.json_lines import finite
from xlmrxl_train.track.secrets import redact

_EXAMPLES = 5  # of each language
_LIBRARY = '<script type="application/octet-stream" id="library">'
_EXAMPLES_OF_PAGE = 2000  # that keep it below 6 MB, in any script


def write_page(folder: Path) -> None:
    """Write report.html beside the report.json of a run.

    Raises:
        UserError: What the run left cannot be read, or a package is missing.
        OSError: The page cannot be written.
    """
    page = to_html(compare(Found(finished=[read_run(folder)], unfinished=[]), paired=False))
    temporary = folder / ".report.html.partial"
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(folder / "report.html")


def to_html(comparison: Comparison) -> str:
    """Return the page.

    Raises:
        DataError: A file in a run's folder is damaged.
        RunError: Plotly is not installed.
    """
    library = _plotly()
    script = _own("page.js")
    page = _page(comparison)
    allowed = " ".join(f"'sha256-{_sha256(text)}'" for text in (library, script))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"shown": shown, "tag": tag_of, "brief": "{:.6g}".format}
    environment.globals["enumerate"] = enumerate
    text = environment.from_string(_own("page.html")).render(
        page=page,
        figures=script_data(finite([figure for part in page["parts"] for figure in part["figures"]])),
        style=Markup(_own("page.css")),
        script=Markup(script),
        allowed=Markup(allowed),
    )
    return redact(text.strip() + "\n").replace(
        _LIBRARY, _LIBRARY + _packed(library), 1
    )  # what is packed has nothing to hide


def _page(comparison: Comparison) -> dict[str, Any]:
    page = page_of(comparison)
    sections = page.sections[-len(comparison.parts) :]
    languages = sum(len(group.n) for part in comparison.parts for group in part.groups)
    keep = max(1, min(_EXAMPLES, _EXAMPLES_OF_PAGE // languages))
    parts = [_part(part, section, keep) for part, section in zip(comparison.parts, sections, strict=True)]
    for number, figure in enumerate(figure for part in parts for figure in part["figures"]):
        figure["id"] = f"figure-{number + 1}"
    return {
        "title": page.title,
        "before": page.sections[: -len(comparison.parts)],  # what was left out, XTREME's table
        "parts": parts,
    }


def _part(part: Part, section: Any, keep: int) -> dict[str, Any]:
    several = len(part.groups) > 1
    histories = [[read_history(run.folder) for run in group.runs] for group in part.groups]
    mistakes = {
        (group.label, code): found
        for group in part.groups
        for code in group.n
        if (found := mistakes_of(group.first, code, keep=keep)) is not None
    }
    heat = figures.by_step(part, histories)
    drawn = [heat, figures.transfer(part, histories), *figures.curves(part, histories), _confusion(part, mistakes)]
    drawn = [figure for figure in drawn if figure]
    elsewhere = {"Scores", "Runs"} if not several else {part.metrics[0]}  # what the page shows in another form
    return {
        "section": section,
        "tables": [table for table in section.tables if table.title not in elsewhere],
        "metric": part.metrics[0],
        "other_metrics": part.metrics[1:],
        "groups": [
            {
                "label": group.label,
                "setting": group.setting,
                "model": group.first.model,
                "runs": len(group.runs),
                "tiles": tiles(group, part.metrics[0]),
                "card": protocol_card(group, runs),
                "guard": [
                    (f"seed {seed}, " * (len(runs) > 1), line)
                    for seed, run in zip(group.seeds, runs, strict=True)
                    for line in run.guard
                ],
                "events": [line for run in runs for line in run.events],
            }
            for group, runs in zip(part.groups, histories, strict=True)
        ],
        "scores": score_table(part),
        "figures": drawn,
        "mistakes": [
            {
                "group": label if several else "",
                "code": code,
                "name": describe(code).name,
                "n": n,
                "found": found,
                "graded": not metrics.load(part.metrics[0]).HIGHER_IS_BETTER,
            }
            for (label, code), found in mistakes.items()
            for n in [next(group.n[code] for group in part.groups if group.label == label)]
        ],
    }


def _confusion(part: Part, mistakes: dict[tuple[str, str], Mistakes]) -> figures.Figure | None:
    names, counts = [], []
    for group in part.groups:
        of_group = {code: mistakes[label, code].confusion for label, code in mistakes if label == group.label}
        before = f"{group.label}: " if len(part.groups) > 1 else ""
        names += [f"{before}all languages", *(f"{before}{describe(code).name} ({code})" for code in of_group)]
        counts += [sum(of_group.values(), Counter()), *of_group.values()]
    return figures.confusion(names, counts, classes_of(part.groups[0].first, counts))


def _own(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _plotly() -> str:
    """Return Plotly's library, which its Python package holds; that package is not imported, which would take long."""
    found = find_spec("plotly")
    if found is None or not found.submodule_search_locations:
        raise RunError("A page of HTML needs the package plotly. Install it: pip install plotly.")
    path = Path(found.submodule_search_locations[0]) / "package_data" / "plotly.min.js"
    return path.read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _packed(library: str) -> str:
    """Return a third of the bytes, which page.js unpacks: the page is to be mailed and opened on a phone."""
    return base64.b64encode(gzip.compress(library.encode(), mtime=0)).decode()


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
