"""The tables of a page as LaTeX."""

from collections.abc import Iterator

from xlmrxl_train.evaluation.comparison.layout import Page, Table

_LONG = 40  # rows from which a table may break over pages


def to_latex(page: Page) -> str:
    """Return tables for a document that loads booktabs, and longtable where one has more than 40 rows."""
    lines = ["% needs \\usepackage{booktabs,longtable}, and a font with the scripts of the languages named"]
    for section in page.sections:
        lines += ["", f"% {section.title}"]
        lines += [f"% {warning}" for warning in section.warnings]
        for table in section.tables:
            caption = _latex(" ".join([f"{section.title}: {table.title}.", *section.warnings, *table.notes]))
            lines += ["", *_latex_table(table, caption)]
    return "\n".join(lines) + "\n"


def _latex_table(table: Table, caption: str) -> Iterator[str]:
    form = "l" * table.text_columns + "r" * (len(table.columns) - table.text_columns)
    head = " & ".join(map(_latex, table.columns)) + r" \\"
    long = len(table.rows) > _LONG
    if long:
        yield rf"\begin{{longtable}}{{{form}}}"
        yield rf"\caption{{{caption}}}\\"
    else:
        yield from (r"\begin{table}", r"\centering", rf"\caption{{{caption}}}", rf"\begin{{tabular}}{{{form}}}")
    yield from (r"\toprule", head, r"\midrule")
    if long:
        yield r"\endhead"
    for index, row in enumerate(table.rows):
        strong = index in table.strong
        if strong and index - 1 not in table.strong and index:
            yield r"\midrule"
        cells = [rf"\textbf{{{_latex(cell)}}}" if strong and cell else _latex(cell) for cell in row]
        yield " & ".join(cells) + r" \\"
        if strong and index + 1 < len(table.rows) and index + 1 not in table.strong:
            yield r"\midrule"
    yield r"\bottomrule"
    yield from ([r"\end{longtable}"] if long else [r"\end{tabular}", r"\end{table}"])


_LATEX = {letter: f"\\{letter}" for letter in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)
