"""Certified accuracy by radius, and what smoothing adds at inference."""

from collections.abc import Sequence

import pandas as pd

from safemed.certificates.smoothing import wrong_at_most
from safemed.data.prompts import FAILED
from safemed.report.tables.comparisons import CLEAN, paired
from safemed.report.tables.rows import SMOOTHED, check_attack_rows, check_certificate_rows
from safemed.utils.stats import clustered_wilson

CERTIFIED = [
    "model", "function", "sigma", "radius", "n", "certified_accuracy", "ci_low", "ci_high", "sure",
    "empirical_accuracy", "clean_accuracy", "unconfirmed", "mean_radius", "abstain", "samples", "seconds", "alpha",
    "mode", "randomised", "status",
]  # fmt: skip
SURE = 0.999  # confidence of the bound on a whole table's certificates


def certified(rows: pd.DataFrame, radii: Sequence[float], attacks: pd.DataFrame) -> pd.DataFrame:
    """Certified accuracy of each model, function and sigma at each radius: one row each of CERTIFIED.

    rows: CERTIFICATE_ROWS; radii: L2 radii in [0, 1] pixel units; attacks: ATTACK_ROWS of attacks on smoothed models.
    certified_accuracy is the share of ALL n questions with a certified right answer whose radius is at least the one
    asked for (Cohen, Rosenfeld & Kolter 2019, sec. 4); abstentions (share `abstain`) and unparsable predictions count
    as wrong. It never increases with the radius. ci_low, ci_high: 95 % Wilson interval clustered by image, for the
    choice of questions; alpha bounds each single certificate's error. sure: what of certified_accuracy holds with
    confidence SURE for these n questions at once, were as many certificates wrong as alpha allows.

    empirical_accuracy: share of the same questions that the smoothed model is still right on under an L2 attack of that
    radius; clean_accuracy: without one; unconfirmed: certified questions that it is not right on. The attack's verdict
    is a majority of a few votes, searched for the worst: one unconfirmed asks for more votes, many for a look at the
    certificates. All missing where nothing attacked that function at that sigma. mean_radius: mean certified radius of
    right answers, 0 for the others (Zhai et al. 2020); a sequential certificate stops at the radii asked for, which
    bounds it. samples, seconds: means a question. Where a question was not evaluated, status says so, and no number is
    told.

    Raises ValueError if `check_certificate_rows` or `check_attack_rows` does, or a radius is negative.
    """
    check_certificate_rows(rows)
    check_attack_rows(attacks)
    if any(radius < 0 for radius in radii):
        raise ValueError(f"radii must be at least 0, got {list(radii)}")
    records = []
    for key, group in rows.groupby(SMOOTHED):
        against = attacks[(attacks[SMOOTHED] == list(key)).all(axis=1)] if len(attacks) else attacks
        for radius in sorted(radii):
            record = dict(zip(SMOOTHED, key, strict=True)) | _certified_at(group, radius)
            records.append(record | _attacked_at(group, against, radius))
    return pd.DataFrame(records, columns=CERTIFIED)


def _certified_at(group: pd.DataFrame, radius: float) -> dict:
    """The row of `certified` for one smoothed model at one radius, without its keys and what attacks tell."""
    n, failed = len(group), int((group.stopped == FAILED).sum())
    told = {name: group[name].iloc[0] for name in ("alpha", "mode", "randomised")} | {"radius": radius, "n": n}
    if failed:
        return told | {"status": f"incomplete: {failed} of {n} not evaluated"}
    held = group.certified & (group.radius >= radius)
    low, high = clustered_wilson(held, group.image_path)
    sure = max(0, int(held.sum()) - wrong_at_most(n, told["alpha"], SURE)) / n
    return told | {
        "certified_accuracy": held.mean(), "ci_low": low, "ci_high": high, "sure": sure,
        "mean_radius": (group.radius * group.certified).mean(), "abstain": (group.prediction == "").mean(),
        "samples": group.samples.mean(), "seconds": group.seconds.mean(), "status": "complete",
    }  # fmt: skip


def _attacked_at(group: pd.DataFrame, attacks: pd.DataFrame, radius: float) -> dict:
    """What an L2 attack of a radius leaves of a smoothed model's certified questions; nothing where it was not run."""
    under = attacks[attacks.norm == "l2"] if len(attacks) else attacks
    if under.empty:
        return {}
    if set(under.question_id) != set(group.question_id):
        where = ", ".join(f"{name} {group[name].iloc[0]}" for name in SMOOTHED)
        raise ValueError(f"{where}: the l2 attack was on other questions than the certificates; re-run both")
    outcomes = {eps: part.set_index("question_id").outcome for eps, part in under.groupby("eps")}
    right = {eps: told == "right" for eps, told in outcomes.items() if not (told == FAILED).any()}
    told = {"clean_accuracy": right[0.0].mean()} if 0.0 in right else {}
    if radius in right:
        told["empirical_accuracy"] = right[radius].mean()
        if not (group.stopped == FAILED).any():
            held = group.set_index("question_id").eval("certified & radius >= @radius")
            told["unconfirmed"] = int((held & ~right[radius]).sum())
    return told


SMOOTHING = [
    "model", "function", "sigma", "eps", "n", "failed", "clean", "clean_smoothed", "attacked", "attacked_smoothed",
    "difference", "ci_low", "ci_high", "p",
]  # fmt: skip


def smoothing(rows: pd.DataFrame, eps: float) -> pd.DataFrame:
    """What smoothing adds at inference: one row a smoothed model (SMOOTHING), on the questions that it was attacked on.

    rows: ATTACK_ROWS of the clean images, of pgd, and of linf attacks on smoothed models. clean, attacked: accuracy of
    the model itself, unattacked and under pgd at eps; clean_smoothed, attacked_smoothed: of the smoothed model, each
    attacked for itself. difference: attacked_smoothed minus attacked, with its 95 % paired bootstrap over images and
    McNemar's p.
    """
    base = rows[(rows.sigma == 0) & ((rows.attack == CLEAN) | ((rows.attack == "pgd") & (rows.eps == eps)))]
    smoothed = rows[(rows.sigma > 0) & (rows.norm == "linf")]
    records = []
    for key, group in smoothed.groupby(SMOOTHED, sort=False):
        own = base[(base.model == key[0]) & base.question_id.isin(group.question_id)]
        answers = {
            "clean": own[own.attack == CLEAN], "clean_smoothed": group[group.eps == 0],
            "attacked": own[own.attack == "pgd"], "attacked_smoothed": group[group.eps == eps],
        }  # fmt: skip
        told = dict(zip(SMOOTHED, key, strict=True)) | {"eps": eps}
        records.append(told | paired(answers, "attacked_smoothed", "attacked"))
    return pd.DataFrame(records, columns=SMOOTHING)
