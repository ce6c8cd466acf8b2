"""The first of the results pages, as Markdown: what was studied, and what became of the papers' claims."""

from collections.abc import Sequence

from safemed.report.results_page import markdown
from safemed.report.results_page.claims import claims
from safemed.report.results_page.header import WRITTEN, seeds
from safemed.report.results_page.markdown import NONE, Markup, code, link
from safemed.report.results_page.study import Study, commits


def front(studies: Sequence[Study]) -> str:
    """The page: its studies, in the order in which a claim takes its number from them, and the claims."""
    return "\n\n".join(["# Results", _studies(studies), "## Claims", claims(studies)]) + "\n"


def _studies(studies: Sequence[Study]) -> str:
    said = f"{WRITTEN} Each study has a page, with its tables and figures beside it."
    head = ["study", "methods", "variants", "attacks", "questions attacked", "training", "evaluations", "commit"]
    return markdown.text(said, head, map(_row, studies))


def _row(study: Study) -> list[str]:
    known = Markup(", ".join(code(one[:12] + "+" * one.endswith("+")) for one in commits(study.provenance)))
    methods, variants, made = (", ".join(study.config[key]) for key in ("study_methods", "variants", "evaluations"))
    attacks = f"{', '.join(study.config['attack']['suite'])} at {study.eps}/255"
    asked = f"{study.tables['robustness'].n.max():.0f}" if "robustness" in study.tables else NONE
    return [link(study.name, study.page), methods, variants, attacks, asked, seeds(study), made, known]
