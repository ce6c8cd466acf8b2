"""How many training questions the start model answers rightly itself, and so can be taught its own words."""

import pandas as pd

from safemed.report.tables.rows import refuse, require_columns

TARGET_ROWS = ["question_id", "model", "target", "samples", "cut", "tokens", "why"]
TARGETS = ["model", "n", "with_target", "share", "samples", "cut", "tokens", "longest", "status"]


def targets(targets: pd.DataFrame) -> pd.DataFrame:
    """The own targets of each model that is taught them: one row of TARGETS each. Shares are in [0, 1].

    targets: TARGET_ROWS, one row a training question.

    Columns:
    model: the model that is taught.
    n: the training questions.
    with_target: how many have a target: an answer of the start model's own that is right and in the format.
    share: with_target / n.
    samples: the mean number of answers sampled of a question.
    cut: the share of all sampled answers that are as long as max_new_tokens allows.
    tokens, longest: the median and the largest length of a target, in tokens.
    status: complete, or "incomplete: k of n not evaluated"; then there is no share.

    Raises ValueError if a column is missing, or a question appears twice for one model.
    """
    require_columns(targets, TARGET_ROWS, "rows of targets")
    refuse(targets, targets.duplicated(["model", "question_id"]), ["model"], "a question_id appears twice")
    return pd.DataFrame([_of(model, group) for model, group in targets.groupby("model")], columns=TARGETS)


def _of(model: str, group: pd.DataFrame) -> dict:
    taught, failed = group[group.target != ""], int((group.why != "").sum())
    record = {
        "model": model, "n": len(group), "with_target": len(taught), "samples": group.samples.mean(),
        "cut": group.cut.sum() / max(1, group.samples.sum()), "tokens": taught.tokens.median(),
        "longest": taught.tokens.max(),
    }  # fmt: skip
    if failed:
        return record | {"status": f"incomplete: {failed} of {len(group)} not evaluated"}
    return record | {"share": len(taught) / len(group), "status": "complete"}
