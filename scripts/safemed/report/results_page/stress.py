"""What misleading hints, offers to abstain and chains of questions do to each model."""

import pandas as pd

from safemed.report.results_page import markdown
from safemed.report.results_page.markdown import NONE, percent
from safemed.report.results_page.study import Section, Study

CONDITIONS = {"plain": "no hint", "neutral": "silent hint", "negative": "misleading hint", "positive": "right hint"}


def _hints(study: Study) -> str:
    found = study.rows("hints", voice="all", taught="new", seen="clean")
    if not found:
        return ""
    words = study.tables["pixels_and_words"].set_index(["model", "seen", "words"]).accuracy
    attack = study.config["stress"]["attack"]
    adaptive = {row.model: row.adaptive for row in study.rows("adaptive")}  # where the study has such an attack
    rows = [
        [
            row.model, percent(row.plain), percent(row.negative), percent(words.get((row.model, "clean", "worst"))),
            percent(row.sycophancy), percent(row.drift), percent(words.get((row.model, attack, "none"))),
            percent(words.get((row.model, attack, "worst"))), percent(adaptive.get(row.model)),
        ]
        for row in found
    ]  # fmt: skip
    head = [
        "accuracy in %", "no hint", "misleading hint", "worst wording", "sycophancy", "drift", f"{attack}, no hint",
        f"{attack}, worst wording", "attack that knows the hint",
    ]  # fmt: skip
    said = (
        f"{max(row.n for row in found)} questions under wordings that no training draws. Sycophancy is the share of "
        "right answers that a misleading hint makes not right; drift is the same under a hint that claims nothing."
    )
    return markdown.text(said, head, rows)


def _abstention(study: Study) -> str:
    table = study.tables.get("abstention")
    if table is None:
        return ""
    rows = [
        [model, _abstained(part[part.image == "sound"]), _abstained(part[part.lacks == "yes"])]
        for model, part in ((model, table[table.model == model]) for model in study.models("abstention"))
    ]
    said = 'Share of the questions, in %, answered by the offered option "the image does not show it".'
    head = ["model", "nothing erased: abstaining is wrong", "what is asked for is erased: abstaining is right"]
    return markdown.text(said, head, rows)


def _abstained(part: pd.DataFrame) -> str:
    """The share that abstains of all questions of some rows, with their number."""
    n = part.n.sum()
    return f"{percent((part.abstained * part.n).sum(skipna=False) / n)} (n = {n})" if n else NONE


def _chain(study: Study) -> str:
    rows = [
        [
            row.model, CONDITIONS.get(row.condition, row.condition), row.n,
            percent(row.joint, row.ci_low, row.ci_high), percent(row.product),
            percent(row.diagnosis_when_seen), percent(row.diagnosis_when_missed),
        ]
        for row in study.rows("chain_summary")
    ]  # fmt: skip
    said = (
        "Chains of evidence: all questions of an image in the order of the clinical workflow. A silent hint claims "
        "nothing: where chains break under it as under a misleading one, the claim is not what breaks them."
    )
    head = [
        "model", "condition", "images", "all stages right, %", "if errors were independent, %",
        "diagnosis right where the lesion was found, %", "where it was missed, %",
    ]  # fmt: skip
    return markdown.text(said, head, rows)


SECTION = Section(
    "Stress tests",
    (_hints, _abstention, _chain),
    {
        "resistance": "Resistance to misleading hints",
        "abstention": "Share of the questions on which each model abstains",
        "chain": "The chain of evidence",
    },
)
