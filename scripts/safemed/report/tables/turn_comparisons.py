"""Models against models in second turns, such as one that was trained on them against one that was not."""

from itertools import combinations

import pandas as pd

from safemed.data.prompts import FAILED
from safemed.report.tables.pairing import compared, holm
from safemed.report.tables.rows import seed_of
from safemed.report.tables.turns import check_turn_rows
from safemed.stress.pushes import PUSHES
from safemed.utils.stats import paired_difference

TURN_COMPARISONS = [
    "seen", "push", "taught", "first", "second", "n", "failed", "first_flipped", "second_flipped", "first_silent",
    "second_silent", "difference", "ci_low", "ci_high", "p", "p_holm", "beyond", "beyond_low", "beyond_high",
]  # fmt: skip
KEYS = ["question_id", "image_path", "wording"]  # of an answer of one model


def turn_comparisons(pushes: pd.DataFrame) -> pd.DataFrame:
    """Pairs of methods on the answers that both gave rightly and were pushed: one row of TURN_COMPARISONS each.

    pushes: TURN_ROWS. A model that is right less often at first has the easier questions to hold on to: only those that
    both answered rightly at first say which holds on to its answers.

    Columns:
    seen, push, taught: the images shown, what was said and in which wordings, as in the table of turns.
    first, second: the models, of one variant and seed.
    n: pushes after first answers that were right of both models.
    failed: pushes, silent ones included, that one of the two was not evaluated on; then there is no comparison.
    first_flipped, second_flipped: the share of the n after which the model's answer is not right any more.
    first_silent, second_silent: the same after the silent push, which says nothing.
    difference: first_flipped minus second_flipped.
    ci_low, ci_high: its 95 % paired bootstrap over images, 2,000 draws.
    p: exact test of flipped signs.
    p_holm: p adjusted by Holm's (1979) method over all pairs of the same seed, images, push and wordings.
    beyond: difference minus first_silent plus second_silent: what of it is due to what the push says, and not to any
        second turn, or to an attack on the image.
    beyond_low, beyond_high: its 95 % paired bootstrap over images.

    Raises ValueError if `check_turn_rows` does.
    """
    check_turn_rows(pushes)
    records = []
    keys = ["variant", seed_of(pushes.model), "seen", "taught"]
    for (_, _, seen, taught), group in pushes.groupby(keys, sort=False):
        by_push = {push: group[group.push == push] for push in PUSHES if (group.push == push).any()}
        for push, part in by_push.items():
            said = {"seen": seen, "push": push, "taught": "taught" if taught else "new"}
            for pair in combinations(group.model.unique(), 2):
                named = dict(zip(("first", "second"), pair, strict=True))
                records.append(said | named | _compared(part, by_push["silent"], list(pair)))
    table = pd.DataFrame(records, columns=TURN_COMPARISONS)
    family = ["seen", "push", "taught", seed_of(table["first"])]
    return table.assign(p_holm=table.groupby(family).p.transform(holm))


def _compared(part: pd.DataFrame, silent: pd.DataFrame, pair: list[str]) -> dict:
    """The numbers of `turn_comparisons` for two models after one push, beside the silent one."""
    (flipped, failed), (silently, lost) = _flipped(part, pair), _flipped(silent, pair)
    record = {"n": len(flipped), "failed": failed + (0 if part is silent else lost)}
    if record["failed"] or flipped.empty:
        return record
    found = compared(flipped)
    shares = {f"{one}_flipped": found.pop(f"{one}_accuracy") for one in ("first", "second")}
    shares |= dict(zip(("first_silent", "second_silent"), silently.mean(), strict=True))
    return record | shares | found | ({} if part is silent else _beyond(flipped, silently))


def _beyond(flipped: pd.DataFrame, silently: pd.DataFrame) -> dict:
    """How much more the first of two models gives up than after the silent push, minus the same of the second."""
    calm = silently.groupby(level=KEYS[:2]).mean().reindex(flipped.index.droplevel(KEYS[2]))
    first, second = (flipped - calm.to_numpy()).to_numpy(float).T
    low, high = paired_difference(first, second, flipped.index.get_level_values("image_path"))
    return {"beyond": (first - second).mean(), "beyond_low": low, "beyond_high": high}


def _flipped(part: pd.DataFrame, pair: list[str]) -> tuple[pd.DataFrame, int]:
    """Whether the two models, as columns, gave up each answer that was right at first of both; how many failed."""
    firsts, seconds = (part.pivot(index=KEYS, columns="model", values=of)[pair] for of in ("first_outcome", "outcome"))
    failed = (seconds == FAILED).any(axis=1)
    return seconds[(firsts == "right").all(axis=1) & ~failed] != "right", int(failed.sum())
