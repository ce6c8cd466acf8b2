"""An attack on the pixels, hints in the question, and both."""

import pandas as pd

from safemed.data.prompts import FAILED
from safemed.report.tables.rows import accuracy
from safemed.report.tables.stress_rows import check_stress_rows

PIXELS_AND_WORDS = ["model", "seen", "words", "n", "accuracy", "ci_low", "ci_high", "status"]


def pixels_and_words(stress: pd.DataFrame) -> pd.DataFrame:
    """Accuracy with and without an attack on the pixels, with and without hints: one row of PIXELS_AND_WORDS each.

    stress: STRESS_ROWS. Of the hints, those whose wordings no training draws.

    Columns:
    model: which model.
    seen: the images shown, clean or those stored by an attack, which did not know the hint.
    words: none; positive, neutral or negative hints, over all wordings; or worst, where a question counts as right only
        if it is under every misleading wording, as against an attacker who may choose one.
    n: answers (questions, for none and worst).
    accuracy: the share that is right.
    ci_low, ci_high: 95 % Wilson interval clustered by image.
    status: complete, or "incomplete: k of n not evaluated"; then there is no accuracy.

    Raises ValueError if `check_stress_rows` does.
    """
    check_stress_rows(stress)
    shown = stress[(stress.kind == "plain") | ((stress.kind == "hint") & ~stress.taught.astype(bool))].assign(
        words=lambda r: r.polarity.where(r.polarity != "", "none")
    )
    keys = ["model", "seen", "words"]
    records = [
        dict(zip(keys, key, strict=True)) | accuracy(group)
        for key, group in pd.concat([shown, _worst(shown)]).groupby(keys)
    ]
    return pd.DataFrame(records, columns=PIXELS_AND_WORDS)


def _worst(shown: pd.DataFrame) -> pd.DataFrame:
    """Of each question, the row of the misleading wording with the worst outcome."""
    rows = shown[shown.words == "negative"].assign(words="worst", badness=lambda r: r.outcome.map(_badness))
    worst = rows.sort_values("badness", kind="stable").drop_duplicates(["model", "seen", "question_id"], keep="last")
    return worst.drop(columns="badness")


def _badness(outcome: str) -> int:
    """right < not right < not evaluated: the worst of a question's outcomes decides."""
    return 0 if outcome == "right" else 2 if outcome == FAILED else 1
