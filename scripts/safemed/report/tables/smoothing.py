"""What smoothing adds at inference: a model and its smoothed model, each attacked for itself."""

import pandas as pd

from safemed.report.tables.pairing import paired
from safemed.report.tables.rows import CLEAN, SMOOTHED, check_attack_rows

SMOOTHING = [
    "model", "function", "sigma", "eps", "n", "failed", "clean", "clean_smoothed", "attacked", "attacked_smoothed",
    "difference", "ci_low", "ci_high", "p",
]  # fmt: skip


def smoothing(smoothed: pd.DataFrame, plain: pd.DataFrame, eps: float) -> pd.DataFrame:
    """Each smoothed model beside the model itself, on the questions that both were attacked on: one row of SMOOTHING
    each.

    smoothed: ATTACK_ROWS of linf attacks on smoothed models; plain: those of the clean images and of pgd, of the models
    themselves.

    Columns:
    model, function, sigma: the smoothed model.
    eps: the attacks' linf radius, in 1/255.
    n: the questions.
    failed: those that could not be evaluated under some condition; then there is no number.
    clean, attacked: accuracy of the model itself, without an attack and under pgd.
    clean_smoothed, attacked_smoothed: of the smoothed model, whose attack averages gradients over noise.
    difference: attacked_smoothed minus attacked.
    ci_low, ci_high: its 95 % paired bootstrap over images.
    p: exact test of flipped signs.

    Raises ValueError if `check_attack_rows` does.
    """
    check_attack_rows(smoothed)
    check_attack_rows(plain)
    records = []
    for key, group in smoothed.groupby(SMOOTHED, sort=False):
        own = plain[(plain.model == key[0]) & plain.question_id.isin(group.question_id)]
        answers = {
            "clean": own[own.attack == CLEAN], "clean_smoothed": group[group.eps == 0],
            "attacked": own[(own.attack == "pgd") & (own.eps == eps)], "attacked_smoothed": group[group.eps == eps],
        }  # fmt: skip
        record = dict(zip(SMOOTHED, key, strict=True)) | {"eps": float(eps)}
        records.append(record | paired(answers, "attacked_smoothed", "attacked"))
    return pd.DataFrame(records, columns=SMOOTHING)
