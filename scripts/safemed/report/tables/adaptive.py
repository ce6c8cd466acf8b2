"""What an attack on the pixels gains by knowing the misleading hint."""

import pandas as pd

from safemed.data.prompts import FAILED
from safemed.report.tables.pairing import paired
from safemed.report.tables.rows import CLEAN, check_attack_rows, refuse
from safemed.report.tables.stress_rows import check_stress_rows
from safemed.utils.stats import clustered_wilson

ADAPTIVE = [
    "model", "attack", "seen", "eps", "n", "failed", "hinted", "both", "adaptive", "adaptive_low", "adaptive_high",
    "difference", "ci_low", "ci_high", "p",
]  # fmt: skip


def adaptive(hint_attacks: pd.DataFrame, stress: pd.DataFrame, eps: float) -> pd.DataFrame:
    """An attack that knows the misleading hint beside one that does not, of equal budget: one row of ADAPTIVE a model.

    hint_attacks: ATTACK_ROWS of the attack that knows the hint, at eps and without an attack, at 0; stress:
    STRESS_ROWS. Each question comes after one misleading hint throughout, the `hint` of its attacked row.

    Columns:
    model: which model.
    attack: the attack that knows the hint.
    seen: the attack that does not.
    eps: their radius, in 1/255.
    n: the questions.
    failed: those that could not be evaluated; then there is no number.
    hinted: accuracy under the hint on the clean images.
    both: on these and on the stored images of the attack that does not know the hint, which broke some questions at
        smaller radii.
    adaptive: on the clean images and those of the attack that knows it.
    adaptive_low, adaptive_high: its 95 % Wilson interval clustered by image.
    difference: adaptive minus both.
    ci_low, ci_high: its 95 % paired bootstrap over images.
    p: McNemar's exact test.

    Raises ValueError if `check_attack_rows` or `check_stress_rows` does, or a model was not asked under a question's
    wording on stored images.
    """
    check_attack_rows(hint_attacks)
    check_stress_rows(stress)
    keys = ["model", "question_id", "hint"]
    joined = hint_attacks.merge(_on_stored_images(stress), on=keys, how="left", validate="many_to_one")
    refuse(joined, joined.seen.isna(), ["model", "attack", "hint"], "stress_model did not ask this on stored images")
    records = [
        {"model": model, "attack": attack, "seen": seen, "eps": float(eps)}
        | _gained(part[part.eps == 0], part[part.eps == eps])
        for (model, attack, seen), part in joined.groupby(["model", "attack", "seen"], sort=False)
    ]
    return pd.DataFrame(records, columns=ADAPTIVE)


def _on_stored_images(stress: pd.DataFrame) -> pd.DataFrame:
    """The outcome under each misleading hint on images whose attack did not know it, as `unknowing`."""
    shown = stress[(stress.kind == "hint") & (stress.polarity == "negative") & (stress.seen != CLEAN)]
    shown = shown.rename(columns={"name": "hint", "outcome": "unknowing"})
    return shown[["model", "question_id", "hint", "seen", "unknowing"]]


def _gained(clean: pd.DataFrame, knowing: pd.DataFrame) -> dict:
    """The numbers of `adaptive` for one model's rows on clean images and on those of the attack that knows the hint."""
    # What the hint alone makes wrong, the adaptive attack leaves alone; other images may put it right again.
    fell = (clean.outcome != "right") & (clean.unknowing != FAILED)
    both = clean.assign(outcome=clean.outcome.where(fell, clean.unknowing))
    record = paired({"hinted": clean, "both": both, "adaptive": knowing}, "adaptive", "both")
    if "adaptive" in record:
        low, high = clustered_wilson(knowing.outcome == "right", knowing.image_path)
        record |= {"adaptive_low": low, "adaptive_high": high}
    return record
