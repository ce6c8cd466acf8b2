"""Rows of defences whose numbers are counted by hand: five questions, gold A, claims of B."""

import pandas as pd

from safemed.report.tables.defences import DEFENCE_ROWS
from support.stress_rows import PLAIN, row

# defence -> what is answered to q1 .. q5 on clean images, on those of PGD, through the defence, under the hint, the
# claim made for defences, and both silent sentences; "-" abstains. PLAIN's answers are those of `clean` of none.
ANSWERED = {
    "none": {"clean": "AAAAC", "pgd": "ABBBC", "through": "BBBBC", "hint": "ABABC", "made": "AAABC", "silent": "AAAAC"},
    "strip": {
        "clean": "AAAAC",
        "pgd": "ABBBC",
        "through": "BBBBC",
        "hint": "AAAAC",
        "made": "AABBC",
        "silent": "ACAAC",
    },
    "loop": {"clean": "AAA-C", "pgd": "AA-BC", "through": "AB--C", "hint": "AAAAA", "made": "AAA-B", "silent": "AAA-C"},
}
PASSES = {"none": 1.0, "strip": 1.0, "loop": 2.4}


def defence_rows(answered: dict = ANSWERED, **changes) -> pd.DataFrame:
    """The rows of ANSWERED: one hint and one claim made for defences, and one silent sentence beside each."""
    rows = []
    for defence, answers in answered.items():
        for seen in ("clean", "pgd", "through"):
            if seen in answers:
                rows += _rows(defence, answers[seen], seen=seen)
        for words in ("hint", "made"):
            if words in answers:
                said = {"words": words, "wording": f"{words}-1"}
                rows += _rows(defence, answers[words], **said, polarity="negative", claimed="B")
                rows += _rows(defence, answers["silent"], **said, polarity="neutral")
    return pd.DataFrame(rows)[DEFENCE_ROWS].assign(**changes)


def _rows(defence: str, answers: str, **changes) -> list[dict]:
    condition = {"seen": "clean", "words": "", "wording": "", "polarity": "", "claimed": ""} | changes
    own = {"defence": defence, "passes": PASSES[defence], "linf": 8 if condition["seen"] != "clean" else 0}
    made = [row(q, a.replace("-", ""), **condition) | own for q, a in zip(PLAIN, answers, strict=True)]
    abstained = {"outcome": "abstained", "text": "abstained"}
    return [one | abstained if a == "-" else one for one, a in zip(made, answers, strict=True)]
