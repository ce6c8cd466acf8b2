"""What defences at inference are worth against attacks that do not know them, and against those that do."""

import pandas as pd

from safemed.report.results_page import markdown
from safemed.report.results_page.markdown import fixed, p_value, percent
from safemed.report.results_page.study import Section, Study
from safemed.report.tables.defences import PIXELS, WORDS


def _shown(study: Study, against: str) -> list:
    """The rows of a kind of attack; none of a defence that has no number under the attack made for it."""
    return [row for row in study.rows("defences", against=against) if not pd.isna(row.adaptive)]


def _pixels(study: Study) -> str:
    rows = [
        [
            row.model, row.defence, percent(row.clean), percent(row.plain),
            percent(row.adaptive, row.adaptive_low, row.adaptive_high),
            percent(row.difference, row.ci_low, row.ci_high, "+"), p_value(row.p_holm), percent(row.abstained),
            fixed(row.passes, 1),
        ]
        for row in _shown(study, PIXELS)
    ]  # fmt: skip
    said = (
        "Accuracy through each defence, of all questions; an abstention is not right. Read the attack through the "
        "defence: an attacker who knows it starts from the image that PGD stored on the model without one. The gain is "
        "its difference to the model without a defence under the same attack; p is that of flipped signs, with Holm's "
        "adjustment over all models of a seed, defences and attacks."
    )
    head = [
        "model", "defence", "clean, %", "PGD, %", "PGD through it, %", "gain, points", "p", "abstained, %", "passes",
    ]  # fmt: skip
    return markdown.text(said, head, rows)


def _words(study: Study) -> str:
    rows = [
        [
            row.model, row.defence, percent(row.clean_difference, sign="+"), p_value(row.p_clean_holm),
            percent(row.plain), percent(row.adaptive, row.adaptive_low, row.adaptive_high), percent(row.silent),
            percent(row.silent_difference, row.silent_low, row.silent_high, "+"), p_value(row.p_silent_holm),
            percent(row.any_words), f"{percent(row.followed)} ({percent(row.followed_silent)})",
            percent(row.difference, row.ci_low, row.ci_high, "+"), p_value(row.p_holm), percent(row.abstained),
        ]
        for row in _shown(study, WORDS)
    ]  # fmt: skip
    said = (
        "The same against words, the worst of all that were asked: misleading hints, and with them claims in forms and "
        "places that filters let through, the same for every defence. Read silent first: the worst of as many "
        "sentences that claim nothing. What claims do beyond these is the difference after it. What is left under any "
        "words, claims and silent sentences, is all that a defence is worth; the gain is under claims alone. Answers "
        "to a claim name the option claimed; in brackets, how many name it under the silent sentence in its place. "
        "What a defence costs where nobody attacks is the difference on clean questions."
    )
    head = [
        "model", "defence", "clean, points", "p", "hints, %", "and evading claims, %", "silent, %",
        "beyond silent, points", "p", "any words, %", "to a claim, %", "gain, points", "p", "abstained, %",
    ]  # fmt: skip
    return markdown.text(said, head, rows)


SECTION = Section("Defences at inference", (_pixels, _words), {"defences": "Accuracy through each defence"})
