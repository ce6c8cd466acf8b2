"""From one row a question to the tables: pure functions that refuse rows they cannot count honestly."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from scipy.stats import norm

from safemed.prompts import FAILED, OUTCOMES
from safemed.run import atomic_file
from safemed.smoothing import STOPS, wrong_at_most
from safemed.stats import clustered_wilson

ATTACK_ROWS = [
    "question_id", "image_path", "modality", "question_type", "n_options", "gold", "model", "method", "variant",
    "function", "sigma", "attack", "hint", "norm", "eps", "outcome", "answer", "text", "linf", "l2", "steps",
    "attacked",
]  # fmt: skip
CERTIFICATE_ROWS = [
    "question_id", "image_path", "modality", "question_type", "n_options", "gold", "model", "method", "variant",
    "function", "sigma", "mode", "randomised", "coin", "alpha", "n0", "n", "successes", "samples", "p_lower", "stopped",
    "prediction", "certified", "radius", "shard", "seconds",
]  # fmt: skip
COST_RECORD = ["stage", "model", "wall_s", "forward_passes", "backward_passes", "peak_rss_mb"]
SMOOTHED = ["model", "function", "sigma"]  # what a smoothed model is
PARTS = ("modality", "question_type")  # what robustness is also told by
BASELINES = ["kind", "part", "n", "chance", "blind"]

ROBUSTNESS = [
    "model", "method", "variant", "attack", "eps", "n", "accuracy", "ci_low", "ci_high", "unparsable", "status",
    "chance", "blind",
]  # fmt: skip
ROBUSTNESS_BY_PART = [
    "model", "kind", "part", "attack", "eps", "n", "accuracy", "ci_low", "ci_high", "status", "chance", "blind",
]  # fmt: skip
CERTIFIED = [
    "model", "function", "sigma", "radius", "n", "certified_accuracy", "ci_low", "ci_high", "sure",
    "empirical_accuracy", "clean_accuracy", "unconfirmed", "mean_radius", "abstain", "samples", "seconds", "alpha",
    "mode", "randomised", "status",
]  # fmt: skip
COMPLETE = "complete"  # the status of a number
SURE = 0.999  # confidence of the bound on a whole table's certificates
COST = COST_RECORD


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


def cost(records: pd.DataFrame) -> pd.DataFrame:
    """What each stage of each model took: wall time and passes summed over its runs, the peak memory of the largest.

    records: COST_RECORD, one row a run (a model has a run for each attack). wall_s in seconds, a pass
    is one image through the model, peak_rss_mb in MB.

    Raises ValueError if a column is missing or a number is missing or negative.
    """
    if records.empty:
        return pd.DataFrame(columns=COST)
    require_columns(records, COST_RECORD, "cost records")
    bad = records[~(records[COST_RECORD[2:]] >= 0).all(axis=1)]  # NaN is not >= 0 either
    if len(bad):
        raise ValueError(f"cost of {_named(bad, ['stage', 'model'])} is missing or negative: re-run that stage")
    summed = dict.fromkeys(["wall_s", "forward_passes", "backward_passes"], "sum")
    return records.groupby(["stage", "model"], as_index=False).agg(summed | {"peak_rss_mb": "max"})[COST]


def check_attack_rows(rows: pd.DataFrame) -> None:
    """Refuse attack rows that cannot be counted.

    Raises ValueError, naming model, attack and eps and the way out, if a column or value is missing, an outcome is none
    of OUTCOMES or FAILED, or contradicts the answer, a perturbation exceeds eps, a question appears twice for one
    model, or two models answered different questions under the same attack and eps. Empty rows pass.
    """
    if rows.empty:
        return
    check_answers(rows, ATTACK_ROWS, ["attack", "eps"], "attack rows")
    size = rows.linf.where(rows.norm == "linf", rows.l2)
    refuse(rows, size > rows.eps, ["model", "attack", "eps"], "the perturbation linf or l2 exceeds eps")


def check_answers(rows: pd.DataFrame, columns: Sequence[str], condition: list[str], name: str) -> None:
    """Refuse rows, one a question, model and condition, that cannot be counted.

    columns: those that must be there; condition: those of them that tell under what a model answered; name: the rows',
    for messages. Raises ValueError, naming model and condition and the way out, if a column or value is missing, an
    outcome is none of OUTCOMES or FAILED, or contradicts the answer, a question appears twice for one model, or two
    models answered different questions under the same condition.
    """
    require_columns(rows, columns, name)
    where = ["model", *condition]
    refuse(rows, rows[columns].isna().any(axis=1), where, "a value is missing")
    known = (*OUTCOMES, FAILED)
    refuse(rows, ~rows.outcome.isin(known), where, f"an outcome is none of {', '.join(known)}")
    refuse(rows, (rows.outcome == "right") != (rows.answer == rows.gold), where, "the outcome contradicts the answer")
    refuse(rows, rows.duplicated([*where, "question_id"]), where, "a question_id appears twice")
    _same_questions(rows, condition)


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
    for column in ("mode", "randomised", "alpha", "n0"):
        mixed = rows.groupby(SMOOTHED)[column].transform("nunique") > 1
        refuse(rows, mixed, SMOOTHED, f"there is more than one {column}")
    _all_shards(rows)
    _same_questions(rows, ["function", "sigma"])


def _all_shards(rows: pd.DataFrame) -> None:
    """Raise ValueError unless all shards of every certificate table are there, of one division."""
    for key, shards in rows.groupby(SMOOTHED).shard.unique().items():
        parts = [tuple(map(int, shard.split("-of-"))) for shard in shards]
        wanted = {(i, max(of for _, of in parts)) for i in range(1, max(of for _, of in parts) + 1)}
        if odd := sorted(wanted ^ set(parts)):
            under = ", ".join(f"{name} {value}" for name, value in zip(SMOOTHED, key, strict=True))
            raise ValueError(
                f"certificates of {under}: shard {odd[0][0]}-of-{odd[0][1]} is missing, or of another division than "
                f"{', '.join(sorted(shards))}; re-run certify_model"
            )


def refuse(rows: pd.DataFrame, bad: pd.Series, where: list[str], why: str) -> None:
    """Raise ValueError naming the first bad row's evaluation and question, if there is a bad row."""
    if bad.any():
        named = _named(rows[bad], [*where, "question_id"])
        raise ValueError(f"{why}: {named} ({int(bad.sum())} such rows); delete that rows.parquet and re-run its rule")


def accuracy(group: pd.DataFrame) -> dict:
    """n, accuracy with its interval, the unparsable share and chance, of rows under one condition; and their `status`.

    group: needs outcome, n_options and image_path. No accuracy where an answer was not evaluated.
    """
    told = {"n": len(group), "chance": (1 / group.n_options).mean(), "status": status(group)}
    if told["status"] != COMPLETE:
        return told | dict.fromkeys(["accuracy", "ci_low", "ci_high", "unparsable"], float("nan"))
    right = group.outcome == "right"
    low, high = clustered_wilson(right, group.image_path)
    unparsable = (group.outcome == "unparsable").mean()
    return told | {"accuracy": right.mean(), "ci_low": low, "ci_high": high, "unparsable": unparsable}


def status(group: pd.DataFrame) -> str:
    """COMPLETE, or how many answers were not evaluated."""
    failed = int((group.outcome == FAILED).sum())
    return f"incomplete: {failed} of {len(group)} not evaluated" if failed else COMPLETE


def require_columns(frame: pd.DataFrame, columns: Sequence[str], where: str | Path) -> None:
    """Raise ValueError naming `where` and the missing columns, unless `frame` has them all."""
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise ValueError(f"{where}: missing column(s) {', '.join(missing)}; re-run the rule that wrote it")


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write `frame` as CSV, all digits kept, whole or not at all; a header alone if it has no rows."""
    with atomic_file(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")


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


def _blind(baselines: pd.DataFrame, kind: str, part: str) -> float:
    """The text-only accuracy on a modality or question type, or on the questions "all"."""
    require_columns(baselines, BASELINES, "baselines")
    found = baselines.loc[(baselines.kind == kind) & (baselines.part == part), "blind"]
    if len(found) != 1:
        raise ValueError(f"baselines: {len(found)} rows for {kind} {part!r}, need one; re-run the audit")
    return float(found.iloc[0])


def _same_questions(rows: pd.DataFrame, condition: list[str]) -> None:
    """Raise ValueError unless all models of a condition answered the same questions: else accuracies do not compare."""
    for key, group in rows.groupby(condition):
        asked = {model: frozenset(ids) for model, ids in group.groupby("model").question_id}
        first, *others = sorted(asked)
        for other in others:
            if differing := asked[first] ^ asked[other]:
                under = ", ".join(f"{name} {value}" for name, value in zip(condition, key, strict=True))
                raise ValueError(
                    f"models {first} and {other} answered different questions under {under}: {len(differing)} are in"
                    f" one only, such as {min(differing)}; re-run both on the same questions"
                )


def _named(rows: pd.DataFrame, columns: list[str]) -> str:
    """The first row as `column value, ...`, for a message."""
    return ", ".join(f"{column} {rows[column].iloc[0]}" for column in columns)
