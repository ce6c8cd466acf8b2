"""Accuracy of each model under each attack and radius, of all questions and by part."""

import pandas as pd

from safemed.report.tables.rows import accuracy, check_attack_rows, require_columns

PARTS = ("modality", "question_type")  # what robustness is broken down by
BASELINES = ["kind", "part", "n", "chance", "blind"]
ROBUSTNESS = [
    "model", "method", "variant", "attack", "eps", "n", "accuracy", "ci_low", "ci_high", "unparsable", "cut",
    "precision", "status", "chance", "blind",
]  # fmt: skip
ROBUSTNESS_BY_PART = [
    "model", "kind", "part", "attack", "eps", "n", "accuracy", "ci_low", "ci_high", "status", "chance", "blind",
]  # fmt: skip


def robustness(sweeps: pd.DataFrame, baselines: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of each model under each attack at each radius: one row of ROBUSTNESS each. Shares are in [0, 1].

    sweeps: ATTACK_ROWS of the clean images and of the attacks on every question at all radii; baselines: the audit's
    BASELINES.

    Columns:
    model, method, variant: which model.
    attack: the attack's name, or clean.
    eps: its radius, in 1/255; 0 for clean images.
    n: the questions.
    accuracy: the share of ALL n questions whose outcome is "right"; an unparsable answer is not.
    ci_low, ci_high: 95 % Wilson interval, with n divided by the design effect of questions that share an image.
    unparsable: the share of answers that name no option.
    cut: the share of answers that are, cut into tokens again, as long as max_new_tokens allows: probably cut off.
    precision: fp32 or bf16, that of the model that was attacked and asked.
    status: complete, or "incomplete: k of n not evaluated"; then there is no accuracy.
    chance: mean of 1 / number of options.
    blind: the better of two baselines that see no image, on the whole test split.

    Raises ValueError if `check_attack_rows` does, or the baselines have no row "all".
    """
    check_attack_rows(sweeps)
    keys = ["model", "method", "variant", "attack", "eps"]
    records = [
        dict(zip(keys, key, strict=True))
        | accuracy(group)
        | {"cut": group.cut.mean(), "precision": group.precision.iloc[0]}
        | {"blind": _blind(baselines, "questions", "all")}
        for key, group in sweeps.groupby(keys)
    ]
    return pd.DataFrame(records, columns=ROBUSTNESS)


def robustness_by_part(sweeps: pd.DataFrame, baselines: pd.DataFrame) -> pd.DataFrame:
    """`robustness` of the questions of one modality or one question type: one row of ROBUSTNESS_BY_PART each.

    Columns:
    kind: modality or question_type.
    part: which modality or question type.
    model, attack, eps, n, accuracy, ci_low, ci_high, status, chance: as in `robustness`, of the questions of that part.
    blind: the better of two baselines that see no image, on that part of the whole test split.

    Raises ValueError if `check_attack_rows` does, or a part has no row in the baselines.
    """
    check_attack_rows(sweeps)
    records = [
        {"model": model, "kind": kind, "part": part, "attack": attack, "eps": eps}
        | accuracy(group)
        | {"blind": _blind(baselines, kind, part)}
        for kind in PARTS
        for (model, part, attack, eps), group in sweeps.groupby(["model", kind, "attack", "eps"])
    ]
    return pd.DataFrame(records, columns=ROBUSTNESS_BY_PART)


def _blind(baselines: pd.DataFrame, kind: str, part: str) -> float:
    """The text-only accuracy on a modality or question type, or on the questions "all"."""
    require_columns(baselines, BASELINES, "baselines")
    found = baselines.loc[(baselines.kind == kind) & (baselines.part == part), "blind"]
    if len(found) != 1:
        raise ValueError(f"baselines: {len(found)} rows for {kind} {part!r}, need one; re-run the audit")
    return float(found.iloc[0])
