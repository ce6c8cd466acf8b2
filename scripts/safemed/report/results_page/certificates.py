"""What is certified by randomized smoothing, and what smoothing adds under attack."""

from safemed.report.results_page import markdown
from safemed.report.results_page.markdown import percent
from safemed.report.results_page.study import Section, Study


def _certified(study: Study) -> str:
    found = study.rows("certified")
    if not found:
        return ""
    rows = [
        [
            row.model, row.function, row.sigma, row.radius, f"{row.linf_equivalent:.2g}",
            percent(row.certified_accuracy, row.ci_low, row.ci_high), percent(row.sure),
            percent(row.empirical_accuracy),
        ]
        for row in found
    ]  # fmt: skip
    head = [
        "model", "function", "σ", "L2 radius", "as L_inf, in 1/255", "certified, %", "of it sure, %",
        "under an L2 attack, %",
    ]  # fmt: skip
    first = study.tables["certified"].iloc[0]
    said = (
        f'{int(first.n)} questions, α = {first.alpha:g} a question. "As L_inf" is the radius of the largest L_inf ball '
        "inside the certified L2 ball: compare it with the attacks' radii before you read a certificate as a defence."
    )
    return markdown.text(said, head, rows)


def _smoothing(study: Study) -> str:
    rows = [
        [row.model, row.function, row.sigma, percent(row.attacked), percent(row.attacked_smoothed),
         percent(row.difference, row.ci_low, row.ci_high, sign="+")]
        for row in study.rows("smoothing")
    ]  # fmt: skip
    said = f"What smoothing adds at inference: accuracy under PGD at {study.eps}/255, each model attacked for itself."
    head = ["model", "function", "σ", "model, %", "smoothed model, %", "difference, points"]
    return markdown.text(said, head, rows)


SECTION = Section(
    "Certificates", (_certified, _smoothing), {"certified_vs_radius": "Certified accuracy against the L2 radius"}
)
