"""From one row a question to the tables: pure functions that refuse rows they cannot count honestly."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from safemed.prompts import FAILED, OUTCOMES
from safemed.run import atomic_file
from safemed.stats import clustered_wilson

ATTACK_ROWS = [
    "question_id", "image_path", "modality", "question_type", "n_options", "gold", "model", "method", "variant",
    "attack", "norm", "eps", "outcome", "answer", "text", "linf", "l2", "steps", "attacked",
]  # fmt: skip
CERTIFICATE_ROWS = [
    "question_id", "image_path", "modality", "question_type", "n_options", "gold", "model", "method", "variant",
    "sigma", "function", "n0", "n", "alpha", "prediction", "certified", "radius",
]  # fmt: skip
COST_RECORD = ["stage", "model", "wall_s", "forward_passes", "backward_passes", "peak_rss_mb"]
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
    "model", "sigma", "radius", "certified_accuracy", "ci_low", "ci_high", "abstain", "mean_samples", "n", "alpha",
    "function",
]  # fmt: skip
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
        dict(zip(keys, key, strict=True)) | _accuracy(group) | {"blind": _blind(baselines, "questions", "all")}
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
        | _accuracy(group)
        | {"blind": _blind(baselines, kind, part)}
        for kind in PARTS
        for (model, part, attack, eps), group in rows.groupby(["model", kind, "attack", "eps"])
    ]
    return pd.DataFrame(records, columns=ROBUSTNESS_BY_PART)


def certified(rows: pd.DataFrame, radii: Sequence[float]) -> pd.DataFrame:
    """Certified accuracy of each model and sigma at each radius: one row each of CERTIFIED.

    rows: CERTIFICATE_ROWS; radii: L2 radii in [0, 1] pixel units. certified_accuracy is the share of ALL n questions
    with a certified right answer whose radius is at least the one asked for (Cohen, Rosenfeld & Kolter 2019, sec. 4);
    abstentions (share `abstain`) and unparsable predictions count as wrong. It never increases with the radius.
    mean_samples: mean number of draws (column n of the rows) spent on a question. ci_low, ci_high: 95 % Wilson
    interval clustered by image; it covers the choice of questions, while alpha bounds each single certificate's error.

    Raises ValueError if `check_certificate_rows` does, or a radius is negative.
    """
    check_certificate_rows(rows)
    if any(radius < 0 for radius in radii):
        raise ValueError(f"radii must be at least 0, got {list(radii)}")
    records = [
        {"model": model, "sigma": sigma} | _certified_at(group, radius)
        for (model, sigma), group in rows.groupby(["model", "sigma"])
        for radius in sorted(radii)
    ]
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
    require_columns(rows, ATTACK_ROWS, "attack rows")
    where = ["model", "attack", "eps"]
    _refuse(rows, rows[ATTACK_ROWS].isna().any(axis=1), where, "a value is missing")
    known = (*OUTCOMES, FAILED)
    _refuse(rows, ~rows.outcome.isin(known), where, f"an outcome is none of {', '.join(known)}")
    _refuse(rows, (rows.outcome == "right") != (rows.answer == rows.gold), where, "the outcome contradicts the answer")
    size = rows.linf.where(rows.norm == "linf", rows.l2)
    _refuse(rows, size > rows.eps, where, "the perturbation linf or l2 exceeds eps")
    _refuse(rows, rows.duplicated([*where, "question_id"]), where, "a question_id appears twice")
    _same_questions(rows, ["attack", "eps"])


def check_certificate_rows(rows: pd.DataFrame) -> None:
    """Refuse certificate rows that cannot be counted.

    Raises ValueError, naming model and sigma and the way out, if a column or value is missing, `certified` contradicts
    the prediction, a radius is negative, or positive on an abstention, a question appears twice for one model, two
    models answered different questions at the same sigma, or one model mixes functions or alphas. Empty rows pass.
    """
    if rows.empty:
        return
    require_columns(rows, CERTIFICATE_ROWS, "certificate rows")
    where = ["model", "sigma"]
    _refuse(rows, rows[CERTIFICATE_ROWS].isna().any(axis=1), where, "a value is missing")
    _refuse(rows, rows.certified != (rows.prediction == rows.gold), where, "certified contradicts the prediction")
    _refuse(rows, rows.radius < 0, where, "a radius is negative")
    _refuse(rows, (rows.prediction == "") & (rows.radius > 0), where, "an abstention has a positive radius")
    _refuse(rows, rows.duplicated([*where, "question_id"]), where, "a question_id appears twice")
    for column in ("function", "alpha"):
        mixed = rows.groupby(where)[column].transform("nunique") > 1
        _refuse(rows, mixed, where, f"there is more than one {column}")
    _same_questions(rows, ["sigma"])


def require_columns(frame: pd.DataFrame, columns: Sequence[str], where: str | Path) -> None:
    """Raise ValueError naming `where` and the missing columns, unless `frame` has them all."""
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise ValueError(f"{where}: missing column(s) {', '.join(missing)}; re-run the rule that wrote it")


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write `frame` as CSV, all digits kept, whole or not at all; a header alone if it has no rows."""
    with atomic_file(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")


def _accuracy(group: pd.DataFrame) -> dict:
    """n, accuracy with its interval, the unparsable share and chance, of the rows of one model and attack."""
    n, chance, failed = len(group), (1 / group.n_options).mean(), int((group.outcome == FAILED).sum())
    if failed:
        nothing = dict.fromkeys(["accuracy", "ci_low", "ci_high", "unparsable"], float("nan"))
        return {"n": n, "chance": chance, "status": f"incomplete: {failed} of {n} not evaluated"} | nothing
    right = group.outcome == "right"
    low, high = clustered_wilson(right, group.image_path)
    return {
        "n": n, "accuracy": right.mean(), "ci_low": low, "ci_high": high, "status": "complete",
        "unparsable": (group.outcome == "unparsable").mean(), "chance": chance,
    }  # fmt: skip


def _certified_at(group: pd.DataFrame, radius: float) -> dict:
    """The row of `certified` for one model and sigma at one radius, without its keys."""
    held = group.certified & (group.radius >= radius)
    low, high = clustered_wilson(held, group.image_path)
    return {
        "radius": radius, "certified_accuracy": held.mean(), "ci_low": low, "ci_high": high,
        "abstain": (group.prediction == "").mean(), "mean_samples": group.n.mean(), "n": len(group),
        "alpha": group.alpha.iloc[0], "function": group.function.iloc[0],
    }  # fmt: skip


def _blind(baselines: pd.DataFrame, kind: str, part: str) -> float:
    """The text-only accuracy on a modality or question type, or on the questions "all"."""
    require_columns(baselines, BASELINES, "baselines")
    found = baselines.loc[(baselines.kind == kind) & (baselines.part == part), "blind"]
    if len(found) != 1:
        raise ValueError(f"baselines: {len(found)} rows for {kind} {part!r}, need one; re-run the audit")
    return float(found.iloc[0])


def _refuse(rows: pd.DataFrame, bad: pd.Series, where: list[str], why: str) -> None:
    """Raise ValueError naming the first bad row's evaluation and question, if there is a bad row."""
    if bad.any():
        named = _named(rows[bad], [*where, "question_id"])
        raise ValueError(f"{why}: {named} ({int(bad.sum())} such rows); delete that rows.parquet and re-run its rule")


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
