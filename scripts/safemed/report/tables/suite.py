"""The attack suite: each attack beside the worst case so far."""

import pandas as pd

from safemed.data.prompts import FAILED
from safemed.report.tables.comparisons import CLEAN
from safemed.report.tables.rows import check_attack_rows, require_columns
from safemed.utils.stats import clustered_wilson

SUITE = [
    "model", "attack", "norm", "eps", "n", "attacked", "broken", "accuracy", "worst", "ci_low", "ci_high", "failed",
    "median_l2", "forward_passes", "backward_passes",
]  # fmt: skip


def suite(rows: pd.DataFrame, costs: pd.DataFrame, eps: float) -> pd.DataFrame:
    """One row a model and attack (SUITE), the attacks in the order of the rows.

    rows: ATTACK_ROWS of the clean images and of all attacks; costs: their cost.json with the key `attack`. Of the linf
    attacks the rows at `eps` are told. accuracy: share of all n questions right after this attack; attacked: how many
    it was run on, at eps or a smaller radius (one with `survivors` only on what those before it left, so its accuracy
    is theirs and its own); broken: how many of these are not right. worst: share right under EVERY linf attack so far;
    ci_low, ci_high: its 95 % Wilson interval clustered by image. An l2 attack is no part of the worst case and has
    none; median_l2 is that of the questions it broke. Passes are those of the whole run, all its radii, verdicts
    included.

    A number that rests on a question that was not evaluated (`failed`) is missing. Raises ValueError if
    `check_attack_rows` does, or an attack has no cost.
    """
    check_attack_rows(rows)
    if rows.empty:
        return pd.DataFrame(columns=SUITE)
    require_columns(costs, ["model", "attack"], "cost records of attacks")
    told = rows[(rows.norm == "l2") | (rows.attack == CLEAN) | (rows.eps == eps)]
    paid = costs.dropna(subset="attack").set_index(["model", "attack"])[["forward_passes", "backward_passes"]]
    records = []
    for model, of_model in told.groupby("model", sort=False):
        held: pd.Series | None = None
        for attack, part in of_model.groupby("attack", sort=False):
            right = part.set_index("question_id").outcome == "right"
            record = {"model": model, "attack": attack, "norm": part.norm.iloc[0], "eps": part.eps.iloc[0]}
            if (model, attack) not in paid.index:
                raise ValueError(f"no cost of attack {attack} on model {model}: re-run that attack")
            record |= _counts(part, right) | paid.loc[(model, attack)].to_dict()
            if part.norm.iloc[0] == "linf":
                held = right if held is None else held & right
                evaluated = not (of_model.outcome[of_model.norm == "linf"] == FAILED).any()
                if evaluated:
                    record |= dict(zip(("ci_low", "ci_high"), clustered_wilson(held, part.image_path), strict=True))
                    record["worst"] = held.mean()
            records.append(record)
    return pd.DataFrame(records).reindex(columns=SUITE)


def _counts(part: pd.DataFrame, right: pd.Series) -> dict:
    fell = part[part.attacked & part.outcome.isin(["wrong", "unparsable"])]
    failed = int((part.outcome == FAILED).sum())
    return {
        "n": len(part), "attacked": int(part.attacked.sum()), "broken": len(fell), "failed": failed,
        "accuracy": right.mean() if not failed else float("nan"), "median_l2": fell.l2.median(),
    }  # fmt: skip
