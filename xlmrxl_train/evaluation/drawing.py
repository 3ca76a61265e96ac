"""The report's main figures as files for a paper: SVG and PDF to be set, PNG to be looked at.

No titles, since captions are the paper's; widths of a column or a page; colours that people with any colour vision
tell apart, and a marker or a dash for each beside.

Source: Okabe and Ito, "Color Universal Design" (2008), for the colours of lines; the map of the heat-map is cividis
(Nuñez, Anderton and Renslow, "Optimizing colormaps with consideration for color vision deficiency", 2018).
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xlmrxl_train.data.languages import language as describe
from xlmrxl_train.errors import ConfigError, RunError
from xlmrxl_train.evaluation.comparison.comparing import Comparison, Part
from xlmrxl_train.evaluation.html import figures
from xlmrxl_train.evaluation.html.figures import Figure
from xlmrxl_train.evaluation.html.history import read_history
from xlmrxl_train.evaluation.html.scores import is_share

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = ("png", "svg", "pdf")
WIDTH = 5.5  # inches, of the text of a page in one column
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vPX"
_DASHES = ("-", "--", ":", "-.")
_CURVES = ("Training loss", "Learning rate", "Real tokens per second")
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "savefig.dpi": 300,
    "svg.fonttype": "path",  # a reader needs no font
    "svg.hashsalt": "xlmrxl",  # the same picture, the same file
    "pdf.fonttype": 42,  # TrueType, which publishers ask for
}

Draw = Callable[["Axes"], None]


def check_figures(folder: str) -> None:
    """Make sure that figures can be drawn into a folder.

    Raises:
        ConfigError: The folder is a file, or matplotlib is not installed.
    """
    if Path(folder).exists() and not Path(folder).is_dir():
        raise ConfigError(f"--figures must be a folder, got the file {folder}. Name another place.")
    if find_spec("matplotlib") is None:
        raise ConfigError(
            "--figures needs the package matplotlib, found none. Install it: pip install 'xlmrxl_train[figures]'."
        )


def draw(comparison: Comparison, folder: str) -> list[Path]:
    """Write every figure that the runs have numbers for, and return the files.

    Raises:
        DataError: A file in a run's folder is damaged.
        RunError: A file cannot be written.
    """
    written = []
    for part in comparison.parts:
        before = f"{_name(part.dataset)}-" if len(comparison.parts) > 1 else ""
        for name, height, drawn in _figures(part):
            written += [Path(folder) / f"{before}{name}.{ending}" for ending in FORMATS]
            try:
                _save(height, drawn, written[-len(FORMATS) :])
            except OSError as error:
                raise RunError(
                    f"--figures {folder} cannot be written: {error.strerror}. Choose another place."
                ) from None
    return written


def _save(height: float, drawn: Draw, paths: list[Path]) -> None:
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    paths[0].parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_STYLE):
        canvas = Canvas(figsize=(WIDTH, height), layout="constrained")
        drawn(canvas.add_subplot())
        canvas.draw_without_rendering()
        canvas.set_layout_engine("none")  # it is laid out, once for all forms
        for path in paths:
            temporary = path.with_name(f".{path.name}.partial")
            dated = {"svg": "Date", "pdf": "CreationDate"}.get(path.suffix[1:])
            canvas.savefig(temporary, format=path.suffix[1:], metadata={dated: None} if dated else None)
            temporary.replace(path)


def _figures(part: Part) -> Iterator[tuple[str, float, Draw]]:
    """Yield name, height in inches, and what draws it."""
    yield "scores", 0.8 + 0.17 * len(part.languages), partial(_scores, part=part)
    histories = [[read_history(run.folder) for run in group.runs] for group in part.groups]
    if heat := figures.by_step(part, histories):
        of_metric = [choice for choice in heat["choices"] if choice["name"].endswith(part.metrics[0])]
        for choice in of_metric:
            after = f"-{_name(choice['name'].partition(':')[0])}" if len(of_metric) > 1 else ""
            height = 0.8 + 0.17 * len(choice["y"])
            yield f"languages_by_step{after}", height, partial(_heat, choice=choice, metric=part.metrics[0])
    curves = [each for each in figures.curves(part, histories) if each["title"] in _CURVES]
    for figure in [figures.transfer(part, histories), *curves]:
        if figure:
            label = part.metrics[0] if figure["title"] == "Transfer by step" else figure["title"]
            yield _name(figure["title"]), 2.4, partial(_lines, figure=figure, label=label)


def _scores(axes: "Axes", part: Part) -> None:
    """Draw a row per language, the best of the first group on top, with intervals."""
    metric = part.metrics[0]
    first = part.groups[0].languages
    order = sorted(part.languages, key=lambda code: first[code][metric].mean if code in first else float("-inf"))
    scale, several = (100 if is_share(metric) else 1), len(part.groups) > 1
    for position, group in enumerate(part.groups):
        colour = _COLOURS[position % len(_COLOURS)]
        rows = [row for row, code in enumerate(order) if code in group.languages]
        spreads = [group.languages[order[row]][metric] for row in rows]
        shift = (0.5 - (position + 0.5) / len(part.groups)) * 0.6 if several else 0
        places, means = [row + shift for row in rows], [scale * spread.mean for spread in spreads]
        axes.plot(
            means, places, linestyle="", marker=_MARKERS[position % len(_MARKERS)], color=colour, label=group.label
        )
        bounds = [(place, spread.interval) for place, spread in zip(places, spreads, strict=True) if spread.interval]
        axes.hlines([place for place, _ in bounds], [scale * interval[0] for _, interval in bounds],
                    [scale * interval[1] for _, interval in bounds], color=colour, linewidth=1)  # fmt: skip
    axes.set_yticks(range(len(order)), [f"{describe(code).name} ({code})" for code in order])
    axes.set_ylim(-0.7, len(order) - 0.3)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(_with_unit(metric))
    if several:
        _legend(axes)


def _heat(axes: "Axes", choice: dict[str, Any], metric: str) -> None:
    scale = 100 if choice["percent"] else 1
    cells = [[float("nan") if value is None else scale * value for value in row] for row in choice["z"]]
    map_name = "cividis_r" if choice["reverse"] else "cividis"
    mesh = axes.pcolormesh(cells, cmap=map_name, edgecolors="face", linewidth=0.1)  # no gaps where cells meet
    axes.set_yticks([row + 0.5 for row in range(len(choice["y"]))], choice["y"])
    axes.invert_yaxis()
    stride = -(-len(choice["x"]) // 12)
    steps = range(0, len(choice["x"]), stride)
    axes.set_xticks([column + 0.5 for column in steps], [f"{int(choice['x'][column]):,}" for column in steps])
    axes.set_xlabel("optimizer step")
    axes.grid(visible=False)
    figure = axes.get_figure()
    assert figure is not None
    solids = figure.colorbar(mesh, ax=axes, label=_with_unit(metric)).solids
    assert solids is not None
    solids.set(rasterized=False, edgecolor="face")


def _lines(axes: "Axes", figure: Figure, label: str) -> None:
    """Draw lines, of which the colour tells groups apart, or the lines of a single group."""
    scale, known = (100 if figure["percent"] else 1), set()
    several, dashed = figure["several"], any(line["dash"] for line in figure["lines"])
    for position, line in enumerate(figure["lines"]):
        look = line["group"] if several else position
        name = ": ".join([line["label"]] * several + [line["name"]] * (dashed or not several))
        axes.plot(
            line["x"],
            [scale * y for y in line["y"]],
            color=_COLOURS[look % len(_COLOURS)],
            marker=_MARKERS[look % len(_MARKERS)] if len(line["x"]) < 30 else "",
            linestyle=_DASHES[(line["dash"] if dashed else look) % len(_DASHES)],
            label=f"_{name}" if name in known else name,  # once in the legend
        )
        known.add(name)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(f"{label}, %" if figure["percent"] else label[0].lower() + label[1:])
    if label == "Learning rate":
        axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    if len(known) > 1:
        _legend(axes)


def _legend(axes: "Axes") -> None:
    """Put the names above, in as many columns as have room."""
    figure, (lines, names) = axes.get_figure(), axes.get_legend_handles_labels()
    assert figure is not None
    columns = max(1, int(WIDTH / (0.5 + 0.065 * max(map(len, names)))))
    figure.legend(lines, names, loc="outside upper left", ncols=min(columns, len(names)))


def _with_unit(metric: str) -> str:
    return f"{metric}, %" if is_share(metric) else metric


def _name(text: str) -> str:
    """Return the name of a file: "Real tokens per second" -> real_tokens_per_second."""
    return re.sub(r"\W+", "_", text.lower()).strip("_")
