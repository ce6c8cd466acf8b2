"""Questions reworded, and other options offered."""

import pandas as pd

from safemed.report.tables.rows import COMPLETE, accuracy
from safemed.report.tables.stress_rows import beside_plain, check_stress_rows, plain_accuracy

QUESTION_EDITS = [
    "model", "kind", "name", "n", "plain", "accuracy", "ci_low", "ci_high", "consistency", "chance", "status",
]  # fmt: skip


def question_edits(stress: pd.DataFrame) -> pd.DataFrame:
    """Accuracy on edited questions beside that on the same questions unedited: one row of QUESTION_EDITS for each edit.

    stress: STRESS_ROWS.

    Columns:
    model: which model.
    kind: paraphrase or options.
    name: which edit.
    n: the questions.
    plain: accuracy on them unedited.
    accuracy: on them edited, an unparsable answer not being right.
    ci_low, ci_high: 95 % Wilson interval clustered by image.
    consistency: the share that chooses the same option, by its text, as unedited; unparsable answers agree with
        nothing; missing where the right option was removed.
    chance: mean of 1 / number of options.
    status: complete, or "incomplete: k of n not evaluated"; then there is no accuracy.

    Raises ValueError if `check_stress_rows` does, or a question was not asked unedited.
    """
    check_stress_rows(stress)
    records = []
    asked = beside_plain(stress[stress.kind.isin(["paraphrase", "options"])], stress)
    for (model, kind, name), part in asked.groupby(["model", "kind", "name"]):
        record = {"model": model, "kind": kind, "name": name} | accuracy(part) | plain_accuracy(part)
        if name != "removed" and record["status"] == COMPLETE:
            record["consistency"] = ((part.said == part.plain_said) & (part.said != "")).mean()
        records.append(record)
    return pd.DataFrame(records, columns=QUESTION_EDITS)
