"""A comparison as a page, which Markdown, LaTeX and the terminal print alike."""

from xlmrxl_train.evaluation.comparison.comparing import Comparison
from xlmrxl_train.evaluation.comparison.layout import Page, Section
from xlmrxl_train.evaluation.comparison.part_page import part_section
from xlmrxl_train.evaluation.comparison.xtreme_page import xtreme_section


def page_of(comparison: Comparison, *, brief: bool = False) -> Page:
    """Return the page of a comparison.

    Args:
        comparison: What to show.
        brief: Of XTREME's tasks show the one table only, not each task by itself.
    """
    sections = []
    if comparison.left_out:
        sections.append(Section(title="Left out", warnings=comparison.left_out))
    if comparison.xtreme:
        sections.append(xtreme_section(comparison.xtreme, comparison.parts))
    if not (brief and comparison.xtreme):
        sections += [part_section(part) for part in comparison.parts]
    datasets = ", ".join(dict.fromkeys(part.dataset for part in comparison.parts))
    return Page(title="XTREME" if comparison.xtreme else datasets, sections=sections)
