"""What vision towers tell by themselves, beside what their models answer."""

from math import isnan
from typing import NamedTuple

from safemed.report.results_page import markdown
from safemed.report.results_page.markdown import fixed, p_value, percent
from safemed.report.results_page.study import Section, Study


def _towers(study: Study) -> str:
    said = (
        "The vote of the nearest training images on what a test image shows, by the vision tower alone, clean and in "
        f"the worst case of two attacks on its features at {study.eps}/255; and the answers of the whole model, clean "
        "and under PGD. p compares the vote under attack with the base's, with Holm's adjustment over all models and "
        "levels of one seed. The shift is how far an attack without labels moves the features, relative to their "
        "length. Passes are images through the tower, in either direction, in the training and in all that it goes "
        "on from."
    )
    head = [
        "model", "vote on", "images", "vote, clean, %", "vote, attacked, %", "p against base", "shift",
        "answers, clean, %", "answers, PGD, %", "passes",
    ]  # fmt: skip
    return markdown.text(said, head, map(_row, study.rows("towers")))


def _row(row: NamedTuple) -> list:
    attacked = percent(row.knn_pgd, row.knn_pgd_low, row.knn_pgd_high)
    p = markdown.NONE if isnan(row.p_base_holm) else p_value(row.p_base_holm)
    answers = [percent(row.vqa_clean), percent(row.vqa_pgd)]
    votes = [percent(row.knn_clean), attacked, p, fixed(row.shift, 2)]
    return [row.model, row.level, row.n, *votes, *answers, f"{row.passes:,}"]


SECTION = Section("Vision towers", (_towers,), {"towers": "What vision towers tell, clean and attacked"})
