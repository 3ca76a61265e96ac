"""A page as Markdown."""

from xlmrxl_train.evaluation.comparison.layout import Page, Table


def to_markdown(page: Page) -> str:
    """Return a page of Markdown."""
    lines = [f"# {page.title}", ""]
    for section in page.sections:
        lines += [f"## {section.title}", ""]
        lines += [text for warning in section.warnings for text in (f"**{warning}**", "")]
        lines += [text for line in section.lines for text in (line, "")]
        for table in section.tables:
            lines += [f"### {table.title}", "", *_markdown_table(table), ""]
            lines += [text for note in table.notes for text in (note, "")]
    return "\n".join(lines)


def _markdown_table(table: Table) -> list[str]:
    rules = ["---" if index < table.text_columns else "---:" for index in range(len(table.columns))]
    rows = [table.columns, rules]
    for index, row in enumerate(table.rows):
        cells = [cell.replace("|", "\\|") for cell in row]
        rows.append([f"**{cell}**" if cell and index in table.strong else cell for cell in cells])
    return ["| " + " | ".join(row) + " |" for row in rows]
