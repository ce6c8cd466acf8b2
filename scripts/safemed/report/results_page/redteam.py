"""What a red team finds on each model, beside what it finds without claims."""

from safemed.report.results_page import markdown
from safemed.report.results_page.markdown import fixed, p_value, percent
from safemed.report.results_page.study import Section, Study
from safemed.report.tables.redteam import SILENT


def _fooled(study: Study) -> str:
    found = study.rows("redteam")
    control = [row for row in found if row.strategy == SILENT]
    rows = [
        [
            row.model, row.strategy, f"{fixed(row.n_right, 0)} of {row.n}", percent(row.silent),
            percent(row.fooled, row.fooled_low, row.fooled_high), p_value(row.p_silent_holm), percent(row.followed),
            fixed(row.queries, 1),
        ]
        for silent in control
        for row in [silent, *(row for row in found if row.model == silent.model and row.strategy != SILENT)]
    ]  # fmt: skip
    said = (
        "Sets of changes of a question are sought until an answer that was right is not, which fools the model, or "
        "the queries are spent. Read silent first: the share fooled where no change names a wrong option. Only what "
        "goes beyond it is due to claims. p is that of flipped signs, of fooled against silent, with "
        "Holm's adjustment over all models and strategies of one seed."
    )
    head = [
        "model", "strategy", "right at first", "silent, %", "fooled, %", "p against silent", "of these to the claim, %",
        "queries",
    ]  # fmt: skip
    return markdown.text(said, head, rows)


SECTION = Section("Red team", (_fooled,), {"redteam": "Accuracy left after each query of the red team"})
