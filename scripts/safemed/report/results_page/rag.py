"""What retrieved reports do to each model, sound and poisoned, beside their controls."""

from safemed.report.results_page import markdown
from safemed.report.results_page.markdown import fixed, p_value, percent
from safemed.report.results_page.study import Section, Study

SOUND = {"retrieved": "retrieved", "shuffled": "another question's", "checked": "checked"}


def _sound(study: Study) -> str:
    found = [row for row in study.rows("rag") if row.poison == "none"]
    bare = {(row.model, row.shown): row for row in found if row.reports == "none"}
    rows = [
        [
            row.model, row.shown, row.retriever, SOUND[row.reports], percent(row.recall),
            percent(bare[row.model, row.shown].accuracy), percent(row.accuracy, row.ci_low, row.ci_high),
            p_value(row.p_none_holm),
        ]
        for row in found
        if row.reports != "none"
    ]  # fmt: skip
    said = (
        "Reports of training images, which are the right answers about them, stand before each question. recall is the "
        "share of questions before which one states the right answer for the question's type. p is that of flipped "
        "signs, of right answers against no reports, with Holm's adjustment over all rows of the models of a seed. "
        "Models that were not trained with reports drift under any of them."
    )
    head = ["model", "image", "retriever", "reports", "recall, %", "without, %", "accuracy, %", "p"]
    return markdown.text(said, head, rows)


def _poisoned(study: Study) -> str:
    found = [row for row in study.rows("rag") if row.poison != "none"]
    key = ("model", "retriever", "poison", "rate", "per_question")
    beside = {(*(getattr(row, name) for name in key), row.reports): row for row in found}

    def other(row, reports: str, name: str):
        same = beside.get((*(getattr(row, one) for one in key), reports))
        return getattr(same, name) if same else float("nan")

    rows = [
        [
            row.model, row.retriever, row.poison, _many(row), percent(row.poisoned), percent(row.accuracy),
            percent(row.success, row.success_low, row.success_high), fixed(row.n_right, 0),
            percent(other(row, "unclaimed", "success")),
            percent(other(row, "checked", "success")), percent(other(row, "checked", "accuracy")),
            p_value(row.p_clean_holm),
        ]
        for row in found
        if row.reports == "retrieved"
    ]  # fmt: skip
    said = (
        "Poisons claim a wrong answer to a question. Success is the share that is led to it, of the questions that a "
        "poison is aimed at and that are right beside sound reports, whose number follows; unclaimed is the same where "
        "the poisons claim nothing, and only what goes beyond it is due to the claim. Checked is without the reports "
        "that the model contradicts when it is asked about their pictures. p is that of flipped signs, of right "
        "answers against sound reports, adjusted alike."
    )
    head = [
        "model", "retriever", "poison", "how many", "poisoned, %", "accuracy, %", "success, %", "of", "unclaimed, %",
        "success checked, %", "accuracy checked, %", "p",
    ]  # fmt: skip
    return markdown.text(said, head, rows)


def _many(row) -> str:
    if not row.rate:
        return f"{fixed(row.per_question, 0)} a question"
    return f"{fixed(row.n_poisons, 0)} ({fixed(100 * row.rate, 1)} % of the corpus, at least one)"


SECTION = Section("Retrieved reports", (_sound, _poisoned), {"rag": "Accuracy beside retrieved reports"})
