"""A comparison as a file: HTML, Markdown, LaTeX, JSON or CSV."""

import json
from collections.abc import Callable
from pathlib import Path

from xlmrxl_train.errors import ConfigError, RunError
from xlmrxl_train.evaluation.comparison.comparing import Comparison
from xlmrxl_train.evaluation.comparison.latex import to_latex
from xlmrxl_train.evaluation.comparison.markdown import to_markdown
from xlmrxl_train.evaluation.comparison.page import page_of
from xlmrxl_train.evaluation.comparison.plain_values import to_json
from xlmrxl_train.evaluation.comparison.spreadsheet import to_csv
from xlmrxl_train.evaluation.html.page import to_html
from xlmrxl_train.track.json_lines import finite

FORMATS: dict[str, Callable[[Comparison], str]] = {
    ".html": to_html,
    ".md": lambda comparison: to_markdown(page_of(comparison)),
    ".json": lambda comparison: json.dumps(finite(to_json(comparison)), indent=1, ensure_ascii=False) + "\n",
    ".csv": to_csv,
    ".tex": lambda comparison: to_latex(page_of(comparison)),
}


def check_output(path: str) -> None:
    """Make sure that a file's ending says what to write.

    Raises:
        ConfigError: It does not.
    """
    if Path(path).suffix not in FORMATS:
        raise ConfigError(f"--output must end with {', '.join(FORMATS)}, got {path}. The ending says what is written.")


def write(comparison: Comparison, path: str) -> None:
    """Write a comparison in the form that the file's ending says, whole or not at all.

    Raises:
        RunError: The file cannot be written.
    """
    target = Path(path)
    text = FORMATS[target.suffix](comparison)
    temporary = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(target)
    except OSError as error:
        raise RunError(f"--output {path} cannot be written: {error.strerror}. Choose another place.") from None
