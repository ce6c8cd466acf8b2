"""What a second turn does to each model's answers, and an attack on the pixels that knows it."""

from typing import NamedTuple

from safemed.report.results_page import markdown
from safemed.report.results_page.markdown import fixed, p_value, percent
from safemed.report.results_page.study import Section, Study
from safemed.report.tables.rows import CLEAN

SAYS = {  # a push -> what the user does
    "doubt": "doubts it",
    "wrong": "claims a wrong option",
    "right": "claims the right option",
}
SILENT = "silent"


def _pushed(study: Study) -> str:
    rows = [
        [
            row.model, SAYS[row.push], f"{fixed(row.n_right, 0)} of {row.n}",
            percent(row.flipped, row.flipped_low, row.flipped_high), percent(row.flipped_silent),
            percent(row.followed), percent(row.followed_silent),
            percent(_corrected(row), row.corrected_low, row.corrected_high), percent(row.corrected_silent),
        ]
        for row in study.rows("turns", seen=CLEAN, taught="new")
        if row.push != SILENT
    ]  # fmt: skip
    said = (
        "The user replies to the model's first answer, on clean images and in words that no training draws. Given up "
        "is the share of right first answers that are not right any more, followed the share of them that turn to the "
        "option claimed, corrected the share of the other first answers that become right. Silent is the same after a "
        "second turn that says nothing: only what goes beyond it is due to what the user says."
    )
    head = [
        "model", "the user", "right at first", "given up, %", "silent", "followed, %", "silent", "corrected, %",
        "silent",
    ]  # fmt: skip
    return markdown.text(said, head, rows)


def _corrected(row: NamedTuple) -> float:
    """The share corrected, which is with or without the answer by what the user says."""
    return row.corrected_with if row.push == "right" else row.corrected_without


def _adaptive(study: Study) -> str:
    found = study.rows("adaptive_turns")
    if not found:
        return ""
    silent = {(row.model, row.seen): row.second_accuracy for row in study.rows("turns", push=SILENT, taught="new")}
    rows = [
        [
            row.model, percent(silent.get((row.model, CLEAN))), percent(row.pushed),
            percent(silent.get((row.model, row.seen))), percent(row.both),
            percent(row.adaptive, row.adaptive_low, row.adaptive_high),
            percent(row.difference, row.ci_low, row.ci_high, sign="+"), p_value(row.p),
        ]
        for row in found
    ]  # fmt: skip
    seen = found[0].seen
    said = (
        f"{found[0].n} questions: accuracy of the second answer, in %, under an attack on the pixels that knows the "
        f"wrong claim, beside {seen}, which does not and has an equal budget; of both, a question counts as right only "
        "if it is on the clean image, too. Silent is the accuracy after a second turn that says nothing."
    )
    head = [
        "model", "silent, clean", "wrong claim, clean", f"silent, {seen}", f"wrong claim, {seen}",
        "attack that knows the claim", "difference, points", "p",
    ]  # fmt: skip
    return markdown.text(said, head, rows)


def _comparisons(study: Study) -> str:
    table = study.tables.get("turn_comparisons")
    if table is None:
        return ""
    found = table[(table.seen == CLEAN) & (table.push == "wrong") & (table.taught == "new")]
    rows = [
        [
            row.first, row.second, fixed(row.n, 0), percent(row.first_flipped), percent(row.second_flipped),
            percent(row.difference, row.ci_low, row.ci_high, sign="+"), p_value(row.p_holm),
            percent(row.beyond, row.beyond_low, row.beyond_high, sign="+"),
        ]
        for row in found.itertuples()
    ]  # fmt: skip
    said = (
        "Whose right answers are given up more often after a wrong claim, of those that both models gave rightly at "
        "first; p is that of flipped signs, with Holm's adjustment over the pairs of one seed. Beyond silent is the "
        "difference less that after a second turn that says nothing."
    )
    head = [
        "first", "second", "answers", "first gives up, %", "second gives up, %", "difference, points", "p",
        "beyond silent, points",
    ]  # fmt: skip
    return markdown.text(said, head, rows)


SECTION = Section(
    "Second turns", (_pushed, _comparisons, _adaptive), {"turns": "Right answers given up in a second turn"}
)
