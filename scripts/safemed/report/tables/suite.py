"""The attack suite: each attack's budget and result beside the worst case so far."""

import pandas as pd

from safemed.data.prompts import FAILED, of_variant
from safemed.report.tables.rows import CLEAN, check_attack_rows, require_columns
from safemed.utils.stats import clustered_wilson

SUITE = [
    "model", "attack", "norm", "eps", "losses", "restarts", "steps", "n", "attacked", "broken", "accuracy", "worst",
    "ci_low", "ci_high", "failed", "median_l2", "forward_passes", "backward_passes",
]  # fmt: skip


def suite(attacks: pd.DataFrame, attack_costs: pd.DataFrame, eps: float, configs: dict) -> pd.DataFrame:
    """The attacks of the suite in the order in which they are run: one row of SUITE for each model and attack.

    attacks: ATTACK_ROWS of the clean images and of all attacks, of which those at `eps` are shown; attack_costs: their
    cost.json, with the key `attack`; configs: attack.attacks of the config.

    Columns:
    model, attack, norm: which attack on which model, in which norm.
    losses: what the attack climbs in turn, in the order of the config; missing where it climbs none.
    restarts: how often it starts on each of these losses.
    steps: gradient steps of each start; draws of random noise; the steps of an attack of torchattacks as that counts
        them.
    eps: its radius, in 1/255 for linf and in [0, 1] pixel units for l2; infinite where the attack looks for the
        smallest perturbation, and in l0.
    n: the questions.
    attacked: how many of them it was run on, at eps or a smaller radius; an attack on survivors is run only on what all
        linf attacks before it left.
    broken: how many of these it leaves not right.
    accuracy: the share of ALL n questions that is right after it, and for an attack on survivors after all before it
        too.
    worst: the share right on the clean image and under EVERY linf attack so far.
    ci_low, ci_high: its 95 % Wilson interval clustered by image. An attack in l2 or l0 is no part of the worst
        case and has none.
    failed: questions that could not be evaluated; a number that rests on one is missing.
    median_l2: median l2 norm of the perturbations of the questions that it broke.
    forward_passes, backward_passes: images through the vision tower in the whole run, all its radii and the generated
        answers included.

    Raises ValueError if `check_attack_rows` does, or an attack has no cost.
    """
    check_attack_rows(attacks)
    if attacks.empty:
        return pd.DataFrame(columns=SUITE)
    require_columns(attack_costs, ["model", "attack"], "cost records of attacks")
    shown = attacks[(attacks.norm != "linf") | (attacks.attack == CLEAN) | (attacks.eps == eps)]
    passes = attack_costs.dropna(subset="attack").set_index(["model", "attack"])[["forward_passes", "backward_passes"]]
    records = [
        record
        for model, of_model in shown.groupby("model", sort=False)
        for record in _of_model(model, of_model, passes, configs)
    ]
    table = pd.DataFrame(records).reindex(columns=SUITE)
    return table.astype({"restarts": "Int64", "steps": "Int64"})  # whole numbers, and missing for the clean images


def _of_model(model: str, rows: pd.DataFrame, passes: pd.DataFrame, configs: dict) -> list[dict]:
    """The rows of `suite` for one model."""
    records, held = [], None
    evaluated = not (rows.outcome[rows.norm == "linf"] == FAILED).any()
    for attack, part in rows.groupby("attack", sort=False):
        if (model, attack) not in passes.index:
            raise ValueError(f"no cost of attack {attack} on model {model}: re-run that attack")
        right = part.set_index("question_id").outcome == "right"
        record = {"model": model, "attack": attack, "norm": part.norm.iloc[0], "eps": part.eps.iloc[0]}
        record |= _budget(configs.get(attack), part.variant.iloc[0])
        record |= _counts(part, right) | passes.loc[(model, attack)].to_dict()
        if record["norm"] == "linf":
            held = right if held is None else held & right
            record |= _worst(held, part) if evaluated else {}
        records.append(record)
    return records


def _budget(config: dict | None, variant: str) -> dict:
    """What an attack may spend on a variant; nothing for the clean images, which no attack of the config made."""
    if config is None:
        return {}
    losses = config.get("losses", {}).get(variant)
    return {
        "losses": " + ".join(losses) if losses else None,
        "restarts": of_variant(config.get("restarts", 1), variant),
        "steps": config["steps"],
    }


def _worst(held: pd.Series, part: pd.DataFrame) -> dict:
    """The share of questions that every attack so far has left right, with its interval."""
    low, high = clustered_wilson(held, part.image_path)
    return {"worst": held.mean(), "ci_low": low, "ci_high": high}


def _counts(part: pd.DataFrame, right: pd.Series) -> dict:
    """What one attack did to one model's questions."""
    broken = part[part.attacked & part.outcome.isin(["wrong", "unparsable"])]
    failed = int((part.outcome == FAILED).sum())
    return {
        "n": len(part), "attacked": int(part.attacked.sum()), "broken": len(broken), "failed": failed,
        "accuracy": right.mean() if not failed else float("nan"), "median_l2": broken.l2.median(),
    }  # fmt: skip
