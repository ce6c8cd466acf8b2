"""The groups of questions that each model is worst on."""

from typing import NamedTuple

from safemed.report.results_page import markdown
from safemed.report.results_page.markdown import NONE, fixed, p_value, percent
from safemed.report.results_page.study import Section, Study
from safemed.report.tables.groups import KINDS
from safemed.report.tables.rows import CLEAN, COMPLETE


def _gaps(study: Study) -> str:
    attacked = {(row.model, row.kind): row for row in study.rows("groups", condition="pgd")}
    rows = [
        [row.model, KINDS[row.kind], row.groups, fixed(row.least, 0), *_gap(row), *_gap(attacked[row.model, row.kind])]
        for row in study.rows("groups", condition=CLEAN)
        if row.groups > 1
    ]
    said = (
        "The group of questions that each model is worst on, and how far its best group is ahead. Small groups are "
        "far apart by chance: p is the share of random divisions in which some two groups differ as much for "
        "their sizes, with Holm's adjustment over all models of one seed and kinds of group on the same images."
    )
    head = [
        "model", "groups by", "groups", "questions in the smallest", "worst on clean images, %", "gap, points", "p",
        f"worst under PGD, {study.eps}/255, %", "gap, points", "p",
    ]  # fmt: skip
    return markdown.text(said, head, rows)


def _gap(row: NamedTuple) -> list[str]:
    """The worst group with its accuracy, the gap, and its p."""
    if row.status != COMPLETE:
        return [NONE, NONE, NONE]
    worst = f"{row.worst}: {percent(row.worst_accuracy, row.worst_low, row.worst_high)}"
    return [worst, percent(row.gap), p_value(row.p_holm)]


SECTION = Section("Groups of questions", (_gaps,), {"groups": "Accuracy of the worst and the best group of each model"})
