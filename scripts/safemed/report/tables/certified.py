"""Certified accuracy by radius, beside what attacks leave of the same smoothed models."""

import math
from collections.abc import Sequence

import pandas as pd
from scipy.stats import norm

from safemed.certificates.smoothing import STOPS, wrong_at_most
from safemed.data.prompts import FAILED
from safemed.report.tables.rows import (
    ATTACK_ROWS,
    SMOOTHED,
    check_attack_rows,
    check_same_questions,
    refuse,
    require_columns,
)
from safemed.utils.stats import clustered_wilson

CERTIFICATE_ROWS = [
    "question_id", "image_path", "modality", "question_type", "n_options", "gold", "model", "method", "variant",
    "function", "sigma", "mode", "randomised", "coin", "alpha", "n0", "n", "successes", "samples", "p_lower", "stopped",
    "prediction", "certified", "radius", "shard", "seconds", "precision",
]  # fmt: skip
CERTIFIED = [
    "model", "function", "sigma", "radius", "linf_equivalent", "n", "certified_accuracy", "ci_low", "ci_high", "sure",
    "empirical_accuracy", "clean_accuracy", "unconfirmed", "mean_radius", "abstain", "samples", "seconds", "alpha",
    "mode", "randomised", "precision", "status",
]  # fmt: skip
SURE = 0.999  # confidence of the bound on all certificates of a table at once


def certified(
    certificates: pd.DataFrame, radii: Sequence[float], side: int, attacks: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Certified accuracy of each smoothed model at each radius: one row of CERTIFIED each. Shares are in [0, 1].

    certificates: CERTIFICATE_ROWS; radii: L2 radii in [0, 1] pixel units; side: of the images, in pixels; attacks:
    ATTACK_ROWS of L2 attacks on smoothed models.

    Columns:
    model, function, sigma: the smoothed model: the model, the function of it that is smoothed (choice: the most likely
        letter after one forward pass; generate: the generated answer), and the noise's standard deviation.
    radius: the L2 radius, in [0, 1] pixel units.
    linf_equivalent: radius / sqrt(3 side^2) * 255: an image of which every channel of every pixel is moved by no more
        than this many 1/255 stays within the radius, and no larger linf ball lies inside it.
    n: the questions.
    certified_accuracy: the share of ALL n questions with a certified right answer whose radius is at least this one
        (Cohen, Rosenfeld & Kolter 2019, sec. 4); it never increases with the radius.
    ci_low, ci_high: its 95 % Wilson interval clustered by image, for the choice of questions.
    sure: what of certified_accuracy holds with confidence 0.999 for these n questions at once, were as many
        certificates wrong as alpha allows.
    empirical_accuracy: the share of the same questions that the smoothed model is still right on under an L2 attack of
        this radius; missing where nothing attacked it.
    clean_accuracy: the same without an attack.
    unconfirmed: how many certified questions it is not right on under the attack: the attack's verdict is a majority of
        a few votes, so one asks for more votes, many for a look at the certificates.
    mean_radius: mean certified radius of right answers, 0 for the others (Zhai et al. 2020); a sequential certificate
        stops at the largest radius asked for, which bounds it.
    abstain: the share without a certified answer; they count as wrong.
    samples, seconds: means a question.
    alpha: bound on the chance that a single certificate is wrong.
    mode, randomised: how samples are drawn.
    precision: fp32 or bf16: the function that is certified is the model's in this precision.
    status: complete, or "incomplete: k of n not evaluated"; then there is no number.

    Raises ValueError if `check_certificate_rows` or `check_attack_rows` does, a radius is negative, or the attack was
    on other questions than the certificates.
    """
    attacks = pd.DataFrame(columns=ATTACK_ROWS) if attacks is None else attacks
    check_certificate_rows(certificates)
    check_attack_rows(attacks)
    if any(radius < 0 for radius in radii):
        raise ValueError(f"radii must be at least 0, got {list(radii)}")
    records = []
    for key, group in certificates.groupby(SMOOTHED):
        against = attacks[(attacks[SMOOTHED] == list(key)).all(axis=1)] if len(attacks) else attacks
        for radius in sorted(radii):
            record = dict(zip(SMOOTHED, key, strict=True)) | {"linf_equivalent": linf_equivalent(radius, side)}
            records.append(record | _certified_at(group, radius) | _attacked_at(group, against, radius))
    return pd.DataFrame(records, columns=CERTIFIED)


def linf_equivalent(radius: float, side: int) -> float:
    """The radius, in 1/255, of the largest linf ball inside an L2 ball of a radius in [0, 1] pixel units.

    side: of the images of three channels. The corner of the linf ball is sqrt(3 side^2) times its radius away.
    """
    return radius / math.sqrt(3 * side * side) * 255


def check_certificate_rows(rows: pd.DataFrame) -> None:
    """Refuse certificate rows that cannot be counted.

    Raises ValueError, naming model, function and sigma and the way out, if a column or value is missing, `certified`
    contradicts the prediction, a radius is negative, or positive on an abstention or beyond what p_lower proves, a
    question appears twice for one model, a shard is missing, two models answered different questions at the same
    function and sigma, or one model mixes modes or alphas. Empty rows pass.
    """
    if rows.empty:
        return
    require_columns(rows, CERTIFICATE_ROWS, "certificate rows")
    refuse(rows, rows[CERTIFICATE_ROWS].isna().any(axis=1), SMOOTHED, "a value is missing")
    refuse(rows, rows.certified != (rows.prediction == rows.gold), SMOOTHED, "certified contradicts the prediction")
    refuse(rows, rows.radius < 0, SMOOTHED, "a radius is negative")
    refuse(rows, (rows.prediction == "") & (rows.radius > 0), SMOOTHED, "an abstention has a positive radius")
    proven = (rows.sigma * norm.ppf(rows.p_lower)).where(rows.p_lower > 0.5, 0.0)
    refuse(rows, rows.radius > proven + 1e-9, SMOOTHED, "a radius exceeds what p_lower proves")
    refuse(rows, ~rows.stopped.isin([*STOPS, FAILED]), SMOOTHED, "a certificate stopped for no known reason")
    refuse(rows, rows.duplicated([*SMOOTHED, "question_id"]), SMOOTHED, "a question_id appears twice")
    for column in ("mode", "randomised", "alpha", "n0", "precision"):
        mixed = rows.groupby(SMOOTHED)[column].transform("nunique") > 1
        refuse(rows, mixed, SMOOTHED, f"there is more than one {column}")
    _check_shards(rows)
    check_same_questions(rows, ["function", "sigma"])


def _check_shards(rows: pd.DataFrame) -> None:
    """Raise ValueError unless all shards of every smoothed model's certificates are there, of one division."""
    for key, shards in rows.groupby(SMOOTHED).shard.unique().items():
        parts = [tuple(map(int, shard.split("-of-"))) for shard in shards]
        wanted = {(i, max(of for _, of in parts)) for i in range(1, max(of for _, of in parts) + 1)}
        if odd := sorted(wanted ^ set(parts)):
            under = ", ".join(f"{name} {value}" for name, value in zip(SMOOTHED, key, strict=True))
            raise ValueError(
                f"certificates of {under}: shard {odd[0][0]}-of-{odd[0][1]} is missing, or of another division than "
                f"{', '.join(sorted(shards))}; re-run certify_model"
            )


def _certified_at(group: pd.DataFrame, radius: float) -> dict:
    """The row of `certified` for one smoothed model at one radius, without its keys and what attacks leave."""
    n, failed = len(group), int((group.stopped == FAILED).sum())
    record = {name: group[name].iloc[0] for name in ("alpha", "mode", "randomised", "precision")} | {
        "radius": radius,
        "n": n,
    }
    if failed:
        return record | {"status": f"incomplete: {failed} of {n} not evaluated"}
    held = group.certified & (group.radius >= radius)
    low, high = clustered_wilson(held, group.image_path)
    sure = max(0, int(held.sum()) - wrong_at_most(n, record["alpha"], SURE)) / n
    return record | {
        "certified_accuracy": held.mean(), "ci_low": low, "ci_high": high, "sure": sure,
        "mean_radius": (group.radius * group.certified).mean(), "abstain": (group.prediction == "").mean(),
        "samples": group.samples.mean(), "seconds": group.seconds.mean(), "status": "complete",
    }  # fmt: skip


def _attacked_at(group: pd.DataFrame, attacks: pd.DataFrame, radius: float) -> dict:
    """What an L2 attack of a radius leaves of a smoothed model's certified questions; nothing where it was not run."""
    attacks = attacks[attacks.norm == "l2"] if len(attacks) else attacks
    if attacks.empty:
        return {}
    if set(attacks.question_id) != set(group.question_id):
        where = ", ".join(f"{name} {group[name].iloc[0]}" for name in SMOOTHED)
        raise ValueError(f"{where}: the l2 attack was on other questions than the certificates; re-run both")
    outcomes = {eps: part.set_index("question_id").outcome for eps, part in attacks.groupby("eps")}
    right = {eps: found == "right" for eps, found in outcomes.items() if not (found == FAILED).any()}
    record = {"clean_accuracy": right[0.0].mean()} if 0.0 in right else {}
    if radius in right:
        record["empirical_accuracy"] = right[radius].mean()
        if not (group.stopped == FAILED).any():
            held = group.set_index("question_id").eval("certified & radius >= @radius")
            record["unconfirmed"] = int((held & ~right[radius]).sum())
    return record
