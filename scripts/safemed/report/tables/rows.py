"""The rows that tables are made of: their columns, and the checks that refuse what cannot be counted honestly."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from safemed.data.prompts import FAILED, OUTCOMES
from safemed.utils.stats import clustered_wilson

ATTACK_ROWS = [
    "question_id", "image_path", "modality", "question_type", "n_options", "gold", "model", "method", "variant",
    "function", "sigma", "attack", "hint", "norm", "eps", "outcome", "answer", "text", "linf", "l2", "steps",
    "attacked", "cut", "precision",
]  # fmt: skip
COST_RECORD = ["stage", "model", "wall_s", "forward_passes", "backward_passes", "peak_rss_mb"]
# The columns of tables, and of the audit's baselines, that hold text; all others are numbers, or true and false.
TEXT = frozenset(
    {
        "about", "against", "attack", "check", "condition", "defence", "estimator", "family", "first", "function",
        "image", "kind", "lacks", "level", "losses", "measure", "method", "mode", "model", "name", "norm", "order",
        "part", "poison", "polarity", "position", "precision", "push", "question_type", "reports", "retriever",
        "second", "seen", "shown", "source", "stage", "status", "strategy", "target", "taught", "top", "variant",
        "voice", "words",
    }
)  # fmt: skip
TEXT_OF = {
    "comparisons": frozenset({"images"}),
    "groups": frozenset({"best", "worst"}),
    "seed_comparisons": frozenset({"images"}),
}  # those of one table, which are numbers in others
SMOOTHED = ["model", "function", "sigma"]  # what identifies a smoothed model
BASE = "base"  # the method of what all trainings start from
CLEAN = "clean"  # the attack of rows on unattacked images
COMPLETE = "complete"  # the status of a row of a table whose numbers are all there


def seed_of(models: pd.Series) -> pd.Series:
    """What each model's name says of its seed: "" for the study's own, or the number of a further one, as text."""
    return models.str.extract(r"-seed(\d+)$")[0].fillna("")


def check_attack_rows(rows: pd.DataFrame) -> None:
    """Refuse attack rows that cannot be counted.

    Raises ValueError, naming model, attack and eps and the way out, if a column or value is missing, an outcome is none
    of OUTCOMES or FAILED, or contradicts the answer, a perturbation exceeds eps, a question appears twice for one
    model, or two models answered different questions under the same attack and eps. Empty rows pass.
    """
    if rows.empty:
        return
    check_answers(rows, ATTACK_ROWS, ["attack", "eps"], "attack rows")
    mixed = rows.groupby("model").precision.transform("nunique") > 1
    refuse(rows, mixed, ["model", "attack", "eps"], "there is more than one precision")
    size = rows.linf.where(rows.norm == "linf", rows.l2)
    refuse(rows, size > rows.eps, ["model", "attack", "eps"], "the perturbation linf or l2 exceeds eps")


def check_answers(rows: pd.DataFrame, columns: Sequence[str], condition: list[str], name: str) -> None:
    """Refuse rows, one a question, model and condition, that cannot be counted.

    columns: those that must be there; condition: those of them that name the condition under which a model answered;
    name: the rows', for messages. Raises ValueError, naming model and condition and the way out, if a column or value
    is missing, an outcome is none of OUTCOMES or FAILED, or contradicts the answer, a question appears twice for one
    model, or two models answered different questions under the same condition.
    """
    check_outcomes(rows, columns, condition, name)
    check_same_questions(rows, condition)


def check_outcomes(rows: pd.DataFrame, columns: Sequence[str], condition: list[str], name: str) -> None:
    """`check_answers` where models may be asked different questions, as those are whose search went on longer."""
    require_columns(rows, columns, name)
    where = ["model", *condition]
    refuse(rows, rows[columns].isna().any(axis=1), where, "a value is missing")
    known = (*OUTCOMES, FAILED)
    refuse(rows, ~rows.outcome.isin(known), where, f"an outcome is none of {', '.join(known)}")
    refuse(rows, (rows.outcome == "right") != (rows.answer == rows.gold), where, "the outcome contradicts the answer")
    refuse(rows, rows.duplicated([*where, "question_id"]), where, "a question_id appears twice")


def check_same_questions(rows: pd.DataFrame, condition: list[str]) -> None:
    """Raise ValueError unless all models answered the same questions under a condition."""
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


def refuse(rows: pd.DataFrame, bad: pd.Series, where: list[str], why: str) -> None:
    """Raise ValueError naming the first bad row's evaluation and question, if there is a bad row."""
    if bad.any():
        named = describe(rows[bad], [*where, "question_id"])
        raise ValueError(f"{why}: {named} ({int(bad.sum())} such rows); delete that rows.parquet and re-run its rule")


def require_columns(frame: pd.DataFrame, columns: Sequence[str], where: str | Path) -> None:
    """Raise ValueError naming `where` and the missing columns, unless `frame` has them all."""
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise ValueError(f"{where}: missing column(s) {', '.join(missing)}; re-run the rule that wrote it")


def describe(rows: pd.DataFrame, columns: list[str]) -> str:
    """The first row as `column value, ...`, for a message."""
    return ", ".join(f"{column} {rows[column].iloc[0]}" for column in columns)


def accuracy(group: pd.DataFrame) -> dict:
    """n, accuracy with its interval, the unparsable share and chance, of rows under one condition; and their `status`.

    group: needs outcome, n_options and image_path. No accuracy where an answer was not evaluated.
    """
    record = {"n": len(group), "chance": (1 / group.n_options).mean(), "status": status(group)}
    if record["status"] != COMPLETE:
        return record | dict.fromkeys(["accuracy", "ci_low", "ci_high", "unparsable"], float("nan"))
    right = group.outcome == "right"
    low, high = clustered_wilson(right, group.image_path)
    unparsable = (group.outcome == "unparsable").mean()
    return record | {"accuracy": right.mean(), "ci_low": low, "ci_high": high, "unparsable": unparsable}


def status(group: pd.DataFrame) -> str:
    """COMPLETE, or how many answers were not evaluated."""
    failed = int((group.outcome == FAILED).sum())
    return f"incomplete: {failed} of {len(group)} not evaluated" if failed else COMPLETE


def share(what: pd.Series, among: pd.Series) -> float:
    """The share of `what` among the rows where `among` is true; missing where there are none."""
    return float(what[among].mean()) if among.any() else float("nan")
