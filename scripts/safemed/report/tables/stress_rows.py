"""The rows of the stress test: their columns, their checks, and the answers to the same questions unedited."""

import pandas as pd

from safemed.data.prompts import FAILED
from safemed.report.tables.rows import check_answers, refuse
from safemed.stress.hints import POSITIONS, TARGETS

STRESS_ROWS = [
    "question_id", "image_path", "modality", "question_type", "n_options", "gold", "model", "method", "variant", "kind",
    "name", "polarity", "severity", "seen", "position", "target", "voice", "taught", "templates", "ssim", "claimed",
    "outcome", "answer", "said", "text", "mentions", "confidence", "precision",
]  # fmt: skip
CONDITION = ["kind", "name", "polarity", "severity", "seen", "position", "target"]
ALL = "all"  # every voice, wording or topic


def check_stress_rows(rows: pd.DataFrame) -> None:
    """Refuse rows of the stress test that cannot be counted.

    Raises ValueError, naming model and condition and the way out, if a column or value is missing, an outcome is none
    that is known, or contradicts the answer, a question appears twice under a condition, a claim is not what its
    polarity says, a hint's position or target is none that is known, two targets of a question are one option, or two
    models were asked different questions under one condition. Empty rows pass.
    """
    if rows.empty:
        return
    check_answers(rows, [name for name in STRESS_ROWS if name != "confidence"], CONDITION, "stress rows")
    where = ["model", *CONDITION]
    refuse(rows, (rows.polarity == "positive") & (rows.claimed != rows.gold), where, "a positive claim is wrong")
    unsure = rows.confidence.isna() & (rows.answer != "")
    refuse(rows, unsure, where, "an answer has no confidence")
    misleading = (rows.polarity == "negative") & ((rows.claimed == rows.gold) | (rows.claimed == ""))
    refuse(rows, misleading, where, "a misleading claim is right, or missing")
    refuse(rows, ~rows.position.isin(POSITIONS), where, f"a position is none of {', '.join(POSITIONS)}")
    refuse(rows, ~rows.target.isin(TARGETS), where, "a target is neither 1 nor 2")
    lied = rows[(rows.polarity == "negative") & rows.kind.isin(["hint", "protocol"])]
    options = lied.groupby(["model", "question_id", "target"]).claimed.transform("nunique")
    refuse(lied, options > 1, where, "hints claim different options as one target")
    targets = lied.groupby(["model", "question_id", "claimed"]).target.transform("nunique")
    refuse(lied, targets > 1, where, "both targets are the same option")


def beside_plain(edited: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Edited questions or images, with plain_outcome, plain_answer and plain_said of the same question unedited.

    edited: some of `rows`. An answer whose unedited one was not evaluated counts as not evaluated. Raises ValueError
    where a model was not asked a question unedited.
    """
    keys, plain = ["model", "seen", "question_id"], rows[rows.kind == "plain"]
    unedited = plain[keys].assign(plain_outcome=plain.outcome, plain_answer=plain.answer, plain_said=plain.said)
    beside = edited.merge(unedited, on=keys, how="left", validate="many_to_one")
    refuse(beside, beside.plain_outcome.isna(), ["model", *CONDITION], "the question was not asked unedited")
    return beside.assign(outcome=beside.outcome.mask(beside.plain_outcome == FAILED, FAILED))


def plain_accuracy(part: pd.DataFrame) -> dict:
    """`plain`, the accuracy on the same questions unedited; nothing where one was not evaluated."""
    plain = part.plain_outcome
    return {} if (plain == FAILED).any() else {"plain": (plain == "right").mean()}
