"""Whether the attacks can be believed: checks that a broken attack fails, computed from rows (Carlini et al. 2019)."""

from collections.abc import Iterator

import pandas as pd

from safemed.data.prompts import FAILED
from safemed.evaluation.torchattacks_names import NAMES
from safemed.report.tables.rows import require_columns

PROBED = [  # what is read of the rows of scripts/sanity.py
    "model", "question_id", "n_options", "probe", "loss", "eps", "steps", "climbs", "broken", "linf", "l2",
    "float_broken", "forced_broken", "zero_gradient", "rounding",
]  # fmt: skip
SANITY = ["model", "check", "value", "bound", "passed", "n"]
TOLERANCE = 0.02  # what independent random starts may lose between two budgets, as a share of the questions
REACHED = 0.9  # of an l2 radius: an image may lie inside the ball where pixels end at 0 and 1

Check = tuple[str, float, float, int]  # name, value, the largest value that passes, how many questions it is about


def sanity(probes: pd.DataFrame, attacks: pd.DataFrame, eps: float, configs: dict) -> pd.DataFrame:
    """Checks that a broken attack fails: one row of SANITY for each model and check.

    probes: rows of scripts/sanity.py, direct attacks; attacks: ATTACK_ROWS of the clean images and of all attacks, of
    which those at the radius `eps` are checked; configs: attack.attacks of the config.

    Columns:
    model: which model.
    check: what is checked.
    value: what was measured, a share of the n questions unless the check says otherwise.
    bound: the largest value that passes.
    passed: whether value <= bound.
    n: the questions that it is about. A check that lacks rows, or rests on a question that was not evaluated, has no
        value and fails: a model that is right on no clean image has nothing to be attacked.
    """
    require_columns(probes, PROBED, "probe rows")
    records, free = [], {name for name, config in configs.items() if _gradient_free(config)}
    for model, probed in probes.groupby("model", sort=False):
        for name, value, bound, n in [
            *_probe_checks(probed),
            *_suite_checks(attacks[attacks.model == model], eps, free),
        ]:
            record = {"model": model, "check": name, "value": value, "bound": bound, "passed": bool(value <= bound)}
            records.append(record | {"n": n})
    return pd.DataFrame(records, columns=SANITY)


def _probe_checks(probed: pd.DataFrame) -> Iterator[Check]:
    """Checks on one model's direct attacks; none of them has a value where a question could not be probed."""
    n, failed = probed.question_id.nunique(), (probed.probe == FAILED).any()
    for name, value, bound in _measured(probed, n):
        yield name, float("nan") if failed else value, bound, n


def _measured(probed: pd.DataFrame, n: int) -> Iterator[tuple[str, float, float]]:
    """The probes' checks: name, value and bound."""
    at = dict(list(probed.groupby("probe")))
    radii, steps, restarts, l2, measured = (
        at.get(name, probed.iloc[:0]) for name in ("eps", "steps", "restarts", "l2", "measured")
    )
    nothing = radii[radii.eps == 0]
    yield "eps 0: images or answers changed", _share(nothing.broken.astype(bool) | (nothing.linf > 0), n), 0.0
    yield "accuracy gained by a larger eps", _rise(radii, "eps", n), TOLERANCE
    yield "accuracy gained by more steps", _rise(steps, "steps", n), TOLERANCE
    lost = restarts.pivot(index="question_id", columns="climbs", values="broken").astype(bool)
    lone = lost[lost.columns.min()] & ~lost[lost.columns.max()] if len(lost) else pd.Series(dtype=bool)
    yield "questions lost by more restarts", _share(lone, n), 0.0
    largest = radii[radii.eps == radii.eps.max()]
    yield "accuracy above chance at the largest eps", _above_chance(largest, probed, n), 0.0
    survived = steps[~steps.broken.astype(bool) & (steps.steps > 1)]
    yield "survivors whose image does not reach eps", _mean(survived.linf < survived.eps, steps), 0.01
    survived = l2[~l2.broken.astype(bool)]
    yield "survivors whose image does not reach the l2 radius", _mean(survived.l2 < REACHED * survived.eps, l2), 0.01
    beyond = pd.concat([radii, steps, restarts]).eval("linf > eps").tolist() + l2.eval("l2 > eps").tolist()
    yield "images beyond eps", _mean(pd.Series(beyond, dtype=bool), radii), 0.0
    yield "levels lost in rounding", float(measured.rounding.max()), 0.501
    blank = measured.groupby("loss").zero_gradient
    yield "questions without any gradient", float(blank.apply(lambda z: (z == 1).mean()).max()), 0.0
    yield "share of zero gradients", float(blank.mean().max()), 0.1
    yield "verdict on floats differs from stored", _mean(measured.float_broken != measured.broken, measured), 0.05
    forced = measured[measured.forced_broken.notna()]
    yield "teacher-forced verdict differs from generated", _mean(forced.forced_broken != forced.broken, measured), 0.02


def _gradient_free(config: dict) -> bool:
    """Whether an attack of the config sees no gradient."""
    kind = config["kind"]
    return kind == "noise" or (kind == "torchattacks" and not NAMES[config["attack"]].gradients)


def _suite_checks(rows: pd.DataFrame, eps: float, gradient_free: set[str]) -> Iterator[Check]:
    """Checks on one model's sweeps and suite. gradient_free: the attacks that see no gradient."""
    linf = rows[(rows.norm == "linf") & (rows.eps == eps)]
    accuracy, n = linf.groupby("attack").outcome.agg(_accuracy), linf.question_id.nunique()
    for weaker, stronger in (("noise", "fgsm"), ("fgsm", "pgd")):
        if weaker in accuracy and stronger in accuracy:
            yield f"accuracy under {stronger} above {weaker}", accuracy[stronger] - accuracy[weaker], TOLERANCE, n
    free = linf.attack.isin(gradient_free)
    if free.any() and (~free).any():
        own = linf.attacked & (linf.outcome != "right")  # later attacks of the suite inherit what fell before them
        alone = set(linf[own & free].question_id) - set(linf[own & ~free].question_id)
        known = not (linf.outcome == FAILED).any()
        yield "broken by gradient-free attacks alone", len(alone) / n if known else float("nan"), 0.002, n


def _accuracy(outcomes: pd.Series) -> float:
    """The share that is right; NaN where one was not evaluated."""
    return float("nan") if (outcomes == FAILED).any() else float((outcomes == "right").mean())


def _share(broken: pd.Series, n: int) -> float:
    """The share of n questions; NaN, which passes nothing, where none was measured."""
    return float(broken.sum() / n) if len(broken) else float("nan")


def _mean(wrong: pd.Series, probed: pd.DataFrame) -> float:
    """The share of those there are; 0 where there are none: nothing of the kind went wrong. NaN without probes."""
    if probed.empty:
        return float("nan")
    return float(wrong.astype(bool).mean()) if len(wrong) else 0.0


def _rise(probes: pd.DataFrame, budget: str, n: int) -> float:
    """The largest gain of accuracy from one value of the budget to the next larger one."""
    broken = probes.groupby(budget).broken.sum() / n  # in ascending order
    return float((-broken.astype(float).diff()).max()) if len(broken) > 1 else float("nan")


def _above_chance(largest: pd.DataFrame, probed: pd.DataFrame, n: int) -> float:
    if largest.empty:
        return float("nan")
    chance = (1 / probed.drop_duplicates("question_id").n_options).mean()
    return float((~largest.broken.astype(bool)).sum() / n - chance)
