"""The rows that tables are made of: their columns, and the checks that refuse what cannot be counted honestly."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from scipy.stats import norm

from safemed.certificates.smoothing import STOPS
from safemed.data.prompts import FAILED, OUTCOMES
from safemed.utils.stats import clustered_wilson

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
BASELINES = ["kind", "part", "n", "chance", "blind"]
COMPLETE = "complete"  # the status of a number


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
        named = describe(rows[bad], [*where, "question_id"])
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


def describe(rows: pd.DataFrame, columns: list[str]) -> str:
    """The first row as `column value, ...`, for a message."""
    return ", ".join(f"{column} {rows[column].iloc[0]}" for column in columns)
