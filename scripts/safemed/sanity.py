"""Whether the attacks can be believed: checks that a broken attack fails, computed from rows (Carlini et al. 2019)."""

from collections.abc import Iterator

import pandas as pd

PROBE_ROWS = [
    "model", "question_id", "image_path", "n_options", "probe", "eps", "steps", "restarts", "broken", "spent", "linf",
    "float_broken", "forced_broken", "zero_gradient", "rounding",
]  # fmt: skip
SANITY = ["model", "check", "value", "bound", "passed", "n"]
TOLERANCE = 0.02  # what independent random starts may lose between two budgets, as a share of the questions
GRADIENT_FREE = ("noise", "square")

Check = tuple[str, float, float]  # name, value, the largest value that passes


def sanity(probes: pd.DataFrame, rows: pd.DataFrame, eps: float) -> pd.DataFrame:
    """One row a model and check (SANITY): it passes where value <= bound.

    probes: PROBE_ROWS; rows: those of the clean images and of all attacks at the headline radius `eps`. A model that is
    right on no clean image has nothing to be attacked: its checks fail for want of rows, with value NaN.
    """
    records = []
    for model, probed in probes.groupby("model", sort=False):
        n = probed.question_id.nunique()
        for name, value, bound in [*_probe_checks(probed, n), *_suite_checks(rows[rows.model == model], eps)]:
            told = {"model": model, "check": name, "value": value, "bound": bound, "passed": bool(value <= bound)}
            records.append(told | {"n": n})
    return pd.DataFrame(records, columns=SANITY)


def _probe_checks(probed: pd.DataFrame, n: int) -> Iterator[Check]:
    """Checks on one model's direct attacks of n questions."""
    at = dict(list(probed.groupby("probe")))
    attacked = [at.get(name, probed.iloc[:0]) for name in ("eps", "steps", "restarts", "measured")]
    radii, steps, restarts, measured = attacked
    nothing = radii[radii.eps == 0]
    yield "eps 0: images or answers changed", _share(nothing.broken | (nothing.linf > 0), n), 0.0
    yield "accuracy gained by a larger eps", _rise(radii, "eps", n), TOLERANCE
    yield "accuracy gained by more steps", _rise(steps, "steps", n), TOLERANCE
    lost = restarts.pivot(index="question_id", columns="restarts", values="broken").astype(bool)
    lone = lost[lost.columns.min()] & ~lost[lost.columns.max()] if len(lost) else pd.Series(dtype=bool)
    yield "questions lost by more restarts", _share(lone, n), 0.0
    largest = radii[radii.eps == radii.eps.max()]
    yield "accuracy above chance at the largest eps", _above_chance(largest, probed, n), 0.0
    survived = steps[~steps.broken.astype(bool) & (steps.steps > 1)]
    short = survived.linf < survived.eps
    yield "survivors whose image does not reach eps", float(short.mean()) if len(short) else 0.0, 0.01
    beyond = probed[probed.probe.isin(["eps", "steps", "restarts"])]
    yield "images beyond eps", _share(beyond.linf > beyond.eps, max(1, len(beyond))), 0.0
    yield "levels lost in rounding", float(measured.rounding.max()), 0.501
    yield "questions without any gradient", _share(measured.zero_gradient == 1, n), 0.0
    yield "share of zero gradients", float(measured.zero_gradient.mean()), 0.1
    yield "verdict on floats differs from stored", _share(measured.float_broken != measured.broken, n), 0.05
    forced = measured[measured.forced_broken.notna()]
    yield "teacher-forced verdict differs from generated", _share(forced.forced_broken != forced.broken, n), 0.02


def _suite_checks(rows: pd.DataFrame, eps: float) -> Iterator[Check]:
    """Checks on one model's sweeps and suite."""
    linf = rows[(rows.norm == "linf") & (rows.eps == eps)]
    accuracy = {attack: (part.outcome == "right").mean() for attack, part in linf.groupby("attack")}
    for weaker, stronger in (("noise", "fgsm"), ("fgsm", "pgd")):
        if weaker in accuracy and stronger in accuracy:
            yield f"accuracy under {stronger} above {weaker}", accuracy[stronger] - accuracy[weaker], TOLERANCE
    held = linf.assign(right=linf.outcome == "right")
    blind = held.attack.isin(GRADIENT_FREE)
    if blind.any() and (~blind).any():
        white = held[~blind].groupby("question_id").right.all()
        free = held[blind].groupby("question_id").right.all()
        yield "broken by gradient-free attacks alone", float((white & ~free).mean()), 0.002


def _share(broken: pd.Series, n: int) -> float:
    """The share of n questions; NaN, which passes nothing, where none was measured."""
    return float(broken.astype(bool).sum() / n) if len(broken) else float("nan")


def _rise(probes: pd.DataFrame, budget: str, n: int) -> float:
    """The largest gain of accuracy from one value of the budget to the next larger one."""
    broken = probes.groupby(budget).broken.sum() / n  # in ascending order
    return float((-broken.astype(float).diff()).max()) if len(broken) > 1 else float("nan")


def _above_chance(largest: pd.DataFrame, probed: pd.DataFrame, n: int) -> float:
    if largest.empty:
        return float("nan")
    chance = (1 / probed.drop_duplicates("question_id").n_options).mean()
    return float((~largest.broken.astype(bool)).sum() / n - chance)
