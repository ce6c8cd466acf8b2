"""What an attack on the pixels gains by knowing the misleading hint, or the wrong claim of a second turn."""

import pandas as pd

from safemed.data.prompts import FAILED
from safemed.report.tables.pairing import paired
from safemed.report.tables.rows import CLEAN, check_attack_rows, refuse
from safemed.report.tables.stress_rows import check_stress_rows
from safemed.report.tables.turns import check_turn_rows
from safemed.utils.stats import clustered_wilson

ADAPTIVE = [
    "model", "attack", "seen", "eps", "n", "failed", "hinted", "both", "adaptive", "adaptive_low", "adaptive_high",
    "difference", "ci_low", "ci_high", "p",
]  # fmt: skip
ADAPTIVE_TURNS = ["pushed" if name == "hinted" else name for name in ADAPTIVE]


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
    p: exact test of flipped signs.

    Raises ValueError if `check_attack_rows` or `check_stress_rows` does, or a model was not asked under a question's
    wording on stored images.
    """
    check_attack_rows(hint_attacks)
    check_stress_rows(stress)
    misled = stress[(stress.kind == "hint") & (stress.polarity == "negative") & (stress.seen != CLEAN)]
    records = _compared(hint_attacks, misled.rename(columns={"name": "hint"}), eps, "stress_model")
    return pd.DataFrame(records, columns=ADAPTIVE)


def adaptive_turns(turn_attacks: pd.DataFrame, pushes: pd.DataFrame, eps: float) -> pd.DataFrame:
    """An attack that knows the second turn beside one that does not, of equal budget: one row a model.

    The columns are ADAPTIVE_TURNS.

    turn_attacks: ATTACK_ROWS of the attack that knows the second turn, at eps and without an attack, at 0; pushes:
    TURN_ROWS. The transcript is fixed throughout: the question, the model's own answer to the clean image, and a wrong
    claim in one wording, the `hint` of its attacked row. What counts is the second answer.

    Columns:
    model: which model.
    attack: the attack that knows the second turn.
    seen: the attack that does not: it was on the answer to the first question.
    eps: their radius, in 1/255.
    n: the questions.
    failed: those that could not be evaluated; then there is no number.
    pushed: accuracy of the second answer on the clean images.
    both: on these and on the stored images of the attack that does not know the second turn, which broke some questions
        at smaller radii.
    adaptive: on the clean images and those of the attack that knows it.
    adaptive_low, adaptive_high: its 95 % Wilson interval clustered by image.
    difference: adaptive minus both.
    ci_low, ci_high: its 95 % paired bootstrap over images.
    p: exact test of flipped signs.

    Raises ValueError if `check_attack_rows` or `check_turn_rows` does, or a model was not pushed in a question's
    wording on stored images.
    """
    check_attack_rows(turn_attacks)
    check_turn_rows(pushes)
    misled = pushes[(pushes.push == "wrong") & (pushes.seen != CLEAN)]
    records = _compared(turn_attacks, misled.rename(columns={"wording": "hint"}), eps, "turns_model")
    return pd.DataFrame(records, columns=ADAPTIVE).rename(columns={"hinted": "pushed"})


def _compared(knowing: pd.DataFrame, unknowing: pd.DataFrame, eps: float, rule: str) -> list[dict]:
    """The records of `adaptive`: of an attack that knows the words, and of answers to the same words, named by `hint`,
    on images whose attack did not, which a rule has written.
    """
    keys = ["model", "question_id", "hint"]
    others = unknowing[[*keys, "seen"]].assign(unknowing=unknowing.outcome)
    joined = knowing.merge(others, on=keys, how="left", validate="many_to_one")
    refuse(joined, joined.seen.isna(), ["model", "attack", "hint"], f"{rule} did not ask this on stored images")
    return [
        {"model": model, "attack": attack, "seen": seen, "eps": float(eps)}
        | _gained(part[part.eps == 0], part[part.eps == eps])
        for (model, attack, seen), part in joined.groupby(["model", "attack", "seen"], sort=False)
    ]


def _gained(clean: pd.DataFrame, knowing: pd.DataFrame) -> dict:
    """The numbers of `adaptive` for one model's rows on clean images and those of the attack that knows the words."""
    # What the words alone make wrong, the adaptive attack leaves alone; other images may put it right again.
    fell = (clean.outcome != "right") & (clean.unknowing != FAILED)
    both = clean.assign(outcome=clean.outcome.where(fell, clean.unknowing))
    record = paired({"hinted": clean, "both": both, "adaptive": knowing}, "adaptive", "both")
    if "adaptive" in record:
        low, high = clustered_wilson(knowing.outcome == "right", knowing.image_path)
        record |= {"adaptive_low": low, "adaptive_high": high}
    return record
