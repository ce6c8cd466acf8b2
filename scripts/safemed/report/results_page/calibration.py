"""Whether each model's confidence tells its right answers from its wrong ones."""

from safemed.report.results_page import markdown
from safemed.report.results_page.markdown import NONE, fixed, percent
from safemed.report.results_page.study import Section, Study
from safemed.report.tables.rows import CLEAN


def _confidence(study: Study) -> str:
    found = {(row.model, row.kind, row.polarity): row for row in study.rows("calibration", seen=CLEAN)}
    if not found:
        return ""
    auroc = {key: fixed(row.auroc, 2) for key, row in found.items()}
    blank = {model: percent(row.confidence) for (model, kind, _), row in found.items() if kind == "erasure"}
    n = max(row.n for row in found.values() if row.kind == "plain")
    rows = [
        [
            model, percent(row.accuracy), percent(row.confidence), fixed(row.ece, 2), auroc[model, "plain", ""],
            auroc[model, "hint", "negative"], auroc[model, "hint", "neutral"], blank.get(model, NONE),
        ]
        for (model, kind, _), row in found.items() if kind == "plain"
    ]  # fmt: skip
    said = (
        f"{n} questions: confidence in the answered letter, on clean images. AUROC is the chance that a right answer "
        "is surer than a wrong one, where 0.5 says nothing: uncertain where few answers are wrong, and missing where "
        "none is. A silent hint claims nothing: only what goes beyond it is due to the misleading claim."
    )
    head = [
        "model", "accuracy, %", "confidence, %", "calibration error", "AUROC", "AUROC, misleading hint",
        "AUROC, silent hint", "confidence on blank images, %",
    ]  # fmt: skip
    return markdown.text(said, head, rows)


SECTION = Section("Calibration", (_confidence,), {})
