"""Accuracy of each model under each attack and radius, of all questions and by part."""

import pandas as pd

from safemed.report.tables.rows import BASELINES, accuracy, check_attack_rows, require_columns

PARTS = ("modality", "question_type")  # what robustness is also told by

ROBUSTNESS = [
    "model", "method", "variant", "attack", "eps", "n", "accuracy", "ci_low", "ci_high", "unparsable", "status",
    "chance", "blind",
]  # fmt: skip
ROBUSTNESS_BY_PART = [
    "model", "kind", "part", "attack", "eps", "n", "accuracy", "ci_low", "ci_high", "status", "chance", "blind",
]  # fmt: skip


def robustness(rows: pd.DataFrame, baselines: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of each model under each attack and eps: one row each of ROBUSTNESS, all shares in [0, 1].

    rows: ATTACK_ROWS, one row a question; baselines: BASELINES. accuracy is the share of ALL n questions whose outcome
    is "right"; "unparsable" counts as not right and is also given as a share. ci_low, ci_high: 95 % Wilson interval
    clustered by image. Where a question was not evaluated, status says "incomplete: k of n not evaluated", and
    there is no accuracy. chance: mean of 1 / n_options over the questions; blind: the baselines' row "all".

    Raises ValueError if `check_attack_rows` does, or the baselines have no row "all".
    """
    check_attack_rows(rows)
    keys = ["model", "method", "variant", "attack", "eps"]
    records = [
        dict(zip(keys, key, strict=True)) | accuracy(group) | {"blind": _blind(baselines, "questions", "all")}
        for key, group in rows.groupby(keys)
    ]
    return pd.DataFrame(records, columns=ROBUSTNESS)


def robustness_by_part(rows: pd.DataFrame, baselines: pd.DataFrame) -> pd.DataFrame:
    """`robustness`, a row for each modality and one for each question type (ROBUSTNESS_BY_PART).

    kind: modality or question_type, part: which one; blind is the baselines' row of that part.
    Raises ValueError if `check_attack_rows` does, or a part has no row in the baselines.
    """
    check_attack_rows(rows)
    records = [
        {"model": model, "kind": kind, "part": part, "attack": attack, "eps": eps}
        | accuracy(group)
        | {"blind": _blind(baselines, kind, part)}
        for kind in PARTS
        for (model, part, attack, eps), group in rows.groupby(["model", kind, "attack", "eps"])
    ]
    return pd.DataFrame(records, columns=ROBUSTNESS_BY_PART)


def _blind(baselines: pd.DataFrame, kind: str, part: str) -> float:
    """The text-only accuracy on a modality or question type, or on the questions "all"."""
    require_columns(baselines, BASELINES, "baselines")
    found = baselines.loc[(baselines.kind == kind) & (baselines.part == part), "blind"]
    if len(found) != 1:
        raise ValueError(f"baselines: {len(found)} rows for {kind} {part!r}, need one; re-run the audit")
    return float(found.iloc[0])
