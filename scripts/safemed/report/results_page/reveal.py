"""Which confidence knows how much of the image a model has seen, and which of its answers are right."""

from safemed.report.results_page import markdown
from safemed.report.results_page.markdown import fixed, percent
from safemed.report.results_page.study import Section, Study
from safemed.stress.reveal_orders import SEEDED


def _accuracy(study: Study) -> str:
    found = study.rows("gradient", estimator="letter")
    if not found:
        return ""
    shares = sorted({row.share for row in found})
    accuracy = {(row.model, row.seen, row.order, row.share): percent(row.accuracy) for row in found}
    curves = {(row.model, row.seen, row.order): row for row in found if row.share == shares[-1]}
    rows = [
        [*key, row.n, *(accuracy[*key, share] for share in shares), fixed(row.pearson, 2)]
        for key, row in curves.items()
    ]  # fmt: skip
    said = (
        "Accuracy, in %, where a share of the image's cells is shown and the rest is grey; lesion-last uncovers those "
        "of the lesion after all others. Attacked images are uncovered in the same cells. r is the correlation of "
        "accuracy with the letter's probability over these few shares."
    )
    head = ["model", "images", "order", "questions", *(f"{percent(share)} %" for share in shares), "r"]
    return markdown.text(said, head, rows)


def _ranking(study: Study) -> str:
    whole = {
        (row.model, row.seen, row.estimator): row for row in study.rows("gradient", order=SEEDED) if row.share == 1
    }
    rows = [
        [
            row.model, row.seen, row.estimator, f"{fixed(row.n_wrong, 0)} of {row.n}",
            _between(row.auroc, row.auroc_low, row.auroc_high),
            _between(row.beyond, row.beyond_low, row.beyond_high, "+"),
            fixed(_of_whole(whole, row, "n_wrong"), 0), fixed(_of_whole(whole, row, "auroc"), 2),
            fixed(_of_whole(whole, row, "ece"), 2),
        ]
        for row in study.rows("gradient_summary", order=SEEDED)
    ]  # fmt: skip
    said = (
        "How well each confidence tells right answers from wrong ones: AUROC over the answers at all shares together, "
        "where 0.5 says nothing, and less that of the letter's probability, with 95 % intervals over images. p_A is "
        "the share of votes under noise that a certificate bounds, in the smoothed model's answer; noise is the share "
        "of the same votes for the model's own."
    )
    head = [
        "model", "images", "confidence", "wrong", "AUROC", "beyond the letter", "wrong, whole images",
        "AUROC, whole images", "calibration error, whole images",
    ]  # fmt: skip
    return markdown.text(said, head, rows)


def _of_whole(whole: dict, row, column: str) -> float | None:
    """A number of the same confidence on whole images."""
    found = whole.get((row.model, row.seen, row.estimator))
    return None if found is None else getattr(found, column)


def _between(value: float, low: float, high: float, sign: str = "") -> str:
    """A number with two decimals, and its interval where there is one."""
    shown = fixed(value, 2) if value != value or not sign else f"{value:+z.2f}"
    return shown if low != low else f"{shown} ({low:{sign}z.2f} to {high:{sign}z.2f})"


SECTION = Section(
    "Revealed evidence", (_accuracy, _ranking), {"gradient": "Accuracy and confidence against the share that is shown"}
)
