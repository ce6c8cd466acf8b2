"""The results page of a study, as Markdown, from its tables.

No number in it is typed by hand: all are read from the study's CSV tables and from provenance.json beside them. Each
section has a module of its own; one that the study has no table of is left out.
"""

from collections.abc import Collection, Iterable

from safemed.report.results_page import (
    calibration,
    certificates,
    cost,
    defences,
    groups,
    published,
    rag,
    redteam,
    reveal,
    robustness,
    seeds,
    stress,
    towers,
    turns,
)
from safemed.report.results_page.header import header
from safemed.report.results_page.study import Section, Study

SECTIONS: tuple[Section, ...] = tuple(
    module.SECTION
    for module in (
        robustness,
        seeds,
        towers,
        groups,
        certificates,
        stress,
        calibration,
        published,
        turns,
        redteam,
        defences,
        rag,
        reveal,
        cost,
    )
)
FIGURES = [name for section in SECTIONS for name in section.figures]


def page(study: Study, figures: Iterable[str]) -> str:
    """The results page of a study. figures: names of FIGURES that lie beside the page as PNG."""
    there = set(figures)
    sections = [text for text in (_section(study, section, there) for section in SECTIONS) if text]
    return "\n\n".join([f"# Study `{study.name}`\n\n{header(study)}", *sections]) + "\n"


def _section(study: Study, section: Section, there: Collection[str]) -> str:
    """A section with those of its figures that are there; "" where the study has no table of it."""
    written = [text for text in (write(study) for write in section.writers) if text]
    pictures = [f"![{shown}]({name}.png)" for name, shown in section.figures.items() if name in there]
    return "\n\n".join([f"## {section.heading}", *pictures, *written]) if written else ""
