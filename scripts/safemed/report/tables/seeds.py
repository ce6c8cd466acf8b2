"""What holds over several trainings of each method, each with a seed of its own."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from scipy.stats import t

from safemed.data.prompts import FAILED
from safemed.report.tables.certified import certified
from safemed.report.tables.comparisons import WORST, worst_case
from safemed.report.tables.hints import hints
from safemed.report.tables.rows import CLEAN, check_attack_rows
from safemed.report.tables.stress_rows import ALL

SEEDS = [
    "method", "variant", "measure", "condition", "trainings", "missing", "mean", "least", "greatest", "low", "high",
]  # fmt: skip
VALUES = ["model", "measure", "condition", "value"]
OF_HINTS = ("negative", "sycophancy", "followed", "drift")


def seeds(
    attacks: pd.DataFrame, eps: float, radii: Sequence[float], side: int,
    certificates: pd.DataFrame | None = None, stress: pd.DataFrame | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Each measure over the trainings of a method's variant: one row of SEEDS each. Shares are in [0, 1].

    attacks: ATTACK_ROWS of the clean images and of all attacks, of which the linf ones at `eps` are shown;
    certificates: CERTIFICATE_ROWS, counted at the `radii` for images of `side` pixels; stress: STRESS_ROWS.

    Columns:
    method, variant: which models, one a seed.
    measure: accuracy, certified_accuracy, or a column of the table of hints: negative, sycophancy, followed, drift.
    condition: of accuracy clean, the attack, as in the table of the suite, or worst case; of certified_accuracy the
        function, sigma and radius; of what hints do hints, which are those of all voices on clean images.
    trainings: how many models.
    missing: how many of them have no number, since a question could not be evaluated; then there is none here.
    mean, least, greatest: over the trainings.
    low, high: the mean's 95 % interval by Student's t over the trainings, in [0, 1]: where the mean over many seeds
        lies, on the same questions. A single further training may be outside. Missing for a single training.

    Raises ValueError if the tables of comparisons, certified or hints refuse the rows.
    """
    values = [_accuracies(attacks, eps)]
    if certificates is not None:
        values.append(_certified(certified(certificates, radii, side)))
    if stress is not None:
        values.append(_hinted(hints(stress)))
    given = [rows[["model", "method", "variant"]] for rows in (attacks, certificates, stress) if rows is not None]
    named = pd.concat(given).drop_duplicates("model").set_index("model")
    joined = pd.concat(values, ignore_index=True).join(named, on="model")
    keys = ["method", "variant", "measure", "condition"]
    records = [
        dict(zip(keys, key, strict=True)) | over_trainings(part.value) for key, part in joined.groupby(keys, sort=False)
    ]
    return pd.DataFrame(records, columns=SEEDS)


def over_trainings(values: pd.Series) -> dict:
    """The numbers of SEEDS of one measure's values, one a training."""
    record = {"trainings": len(values), "missing": int(values.isna().sum())}
    if record["missing"]:
        return record
    low, high = student(values)
    spread = {"mean": values.mean(), "least": values.min(), "greatest": values.max()}
    return record | spread | {"low": max(low, 0.0), "high": min(high, 1.0)}


def student(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean by Student's t; missing for fewer than two values."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return float("nan"), float("nan")
    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return values.mean() - half, values.mean() + half


def _accuracies(attacks: pd.DataFrame, eps: float) -> pd.DataFrame:
    """VALUES of each linf attack at eps, of the clean images and of the worst case."""
    check_attack_rows(attacks)
    linf = attacks[(attacks.norm == "linf") & ((attacks.attack == CLEAN) | (attacks.eps == eps))]
    values = [(*key, _mean(part.outcome)) for key, part in linf.groupby(["model", "attack"], sort=False)]
    answers = worst_case(attacks, eps)
    values += [(model, WORST, _share(part.worst)) for model, part in answers.groupby("model", sort=False)]
    frame = pd.DataFrame(values, columns=["model", "condition", "value"]).assign(measure="accuracy")
    return frame[VALUES].astype({"value": float})


def _mean(outcomes: pd.Series) -> float:
    return _share((outcomes == "right").astype("boolean").mask(outcomes == FAILED))


def _share(right: pd.Series) -> float:
    """The share that is true; missing where one is."""
    return float("nan") if right.isna().any() else float(right.mean())


def _certified(table: pd.DataFrame) -> pd.DataFrame:
    conditions = [f"{row.function}, sigma {row.sigma}, radius {row.radius}" for row in table.itertuples()]
    named = table.assign(measure="certified_accuracy", condition=conditions)
    return named.rename(columns={"certified_accuracy": "value"})[VALUES]


def _hinted(table: pd.DataFrame) -> pd.DataFrame:
    shown = table[(table.seen == CLEAN) & (table.voice == ALL) & (table.taught == ALL)]
    return pd.concat([pd.DataFrame(_of_hints(shown, name)) for name in OF_HINTS], ignore_index=True)


def _of_hints(table: pd.DataFrame, name: str) -> Iterator[dict]:
    for row in table.itertuples():
        yield {"model": row.model, "measure": name, "condition": "hints", "value": getattr(row, name)}
