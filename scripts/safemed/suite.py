"""Tables of the attack suite: each attack beside the worst case so far, models against models, transfer."""

from itertools import combinations

import pandas as pd

from safemed.prompts import FAILED
from safemed.stats import clustered_wilson, holm, mcnemar, paired_difference
from safemed.tables import ATTACK_ROWS, SMOOTHED, check_attack_rows, require_columns

SUITE = [
    "model", "attack", "norm", "eps", "n", "attacked", "broken", "accuracy", "worst", "ci_low", "ci_high", "failed",
    "median_l2", "forward_passes", "backward_passes",
]  # fmt: skip
COMPARISONS = [
    "family", "part", "images", "first", "second", "n", "failed", "first_accuracy", "second_accuracy", "difference",
    "ci_low", "ci_high", "p", "p_holm",
]  # fmt: skip
SMOOTHING = [
    "model", "function", "sigma", "eps", "n", "failed", "clean", "clean_smoothed", "attacked", "attacked_smoothed",
    "difference", "ci_low", "ci_high", "p",
]  # fmt: skip
TRANSFER = ["source", "target", "attack", "eps", "n", "failed", "accuracy", "ci_low", "ci_high"]
TRANSFER_ROWS = ["source", *ATTACK_ROWS]
CLEAN, WORST = "clean", "worst case"


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


def worst_case(rows: pd.DataFrame, eps: float) -> pd.DataFrame:
    """One row a model and question: model, method, variant, modality, image_path, question_id, clean, worst.

    clean: whether right on the clean image; worst: whether right on it and under every linf attack at eps. Each is
    missing where it rests on an answer that was not evaluated.
    """
    linf = rows[(rows.norm == "linf") & ((rows.attack == CLEAN) | (rows.eps == eps))]
    keys = ["model", "method", "variant", "modality", "image_path", "question_id"]
    right = (linf.outcome == "right").astype("boolean").mask(linf.outcome == FAILED)
    told = linf.assign(worst=right, clean=right.where(linf.attack == CLEAN, True)).groupby(keys, sort=False)
    return told[["clean", "worst"]].agg(lambda answers: answers.all(skipna=False)).reset_index()


def comparisons(rows: pd.DataFrame, eps: float) -> pd.DataFrame:
    """Pairs of models on the same questions (COMPARISONS), clean and in the worst case at eps.

    family: methods (every two of one variant) or variants (think against instruct of one method, on all questions and
    by modality). difference: first minus second; ci_low, ci_high: 95 % paired bootstrap over images. p: McNemar's exact
    test; p_holm: adjusted over the rows of the same family, images and, for variants by modality, the same method.
    Where a question of either model was not evaluated (`failed` of n) there is no comparison.
    """
    told = worst_case(rows, eps).rename(columns={"clean": CLEAN, "worst": WORST})
    records = []
    for _, group in told.groupby("variant", sort=False):
        models = group.model.unique()
        records += _family(told, "methods", "all", list(combinations(models, 2)))
    for _, group in told.groupby("method", sort=False):
        models = group.drop_duplicates("variant").set_index("variant").model
        if {"think", "instruct"} <= set(models.index):
            pair = (models["think"], models["instruct"])
            records += _family(told, "variants", "all", [pair])
            for modality, part in told.groupby("modality"):
                records += _family(part, "variants by modality", modality, [pair])
    table = pd.DataFrame(records).reindex(columns=[*COMPARISONS, "method"])
    if table.empty:
        return table[COMPARISONS]
    table["method"] = table["first"].where(table.family == "variants by modality", "")
    table["p_holm"] = table.groupby(["family", "images", "method"]).p.transform(_holm)
    return table[COMPARISONS]


def _family(told: pd.DataFrame, family: str, part: str, pairs: list[tuple[str, str]]) -> list[dict]:
    """The rows of `comparisons` for some pairs of models, without the adjusted p."""
    records = []
    for images in (CLEAN, WORST):
        answers = told.pivot(index=["question_id", "image_path"], columns="model", values=images)
        for first, second in pairs:
            if not {first, second} <= set(answers):
                continue
            both = answers[[first, second]]
            failed = int(both.isna().any(axis=1).sum())
            record = {"family": family, "part": part, "images": images, "first": first, "second": second}
            record |= {"n": len(both), "failed": failed}
            records.append(record if failed else record | _compared(both.astype(bool)))
    return records


def _compared(both: pd.DataFrame) -> dict:
    """The numbers of two models' answers, columns first and second, bool [n], indexed by question and image."""
    first, second = (both[model] for model in both)
    low, high = paired_difference(first, second, both.index.get_level_values("image_path"))
    return {
        "first_accuracy": first.mean(), "second_accuracy": second.mean(), "difference": first.mean() - second.mean(),
        "ci_low": low, "ci_high": high, "p": mcnemar(first, second),
    }  # fmt: skip


def _holm(p_values: pd.Series) -> pd.Series:
    """Holm's adjusted values of those that there are."""
    told = p_values.dropna()
    return pd.Series(holm(told), told.index).reindex(p_values.index)


def smoothing(rows: pd.DataFrame, eps: float) -> pd.DataFrame:
    """What smoothing adds at inference: one row a smoothed model (SMOOTHING), on the questions that it was attacked on.

    rows: ATTACK_ROWS of the clean images, of pgd, and of linf attacks on smoothed models. clean, attacked: accuracy of
    the model itself, unattacked and under pgd at eps; clean_smoothed, attacked_smoothed: of the smoothed model, each
    attacked for itself. difference: attacked_smoothed minus attacked, with its 95 % paired bootstrap over images and
    McNemar's p.
    """
    base = rows[(rows.sigma == 0) & ((rows.attack == CLEAN) | ((rows.attack == "pgd") & (rows.eps == eps)))]
    smoothed = rows[(rows.sigma > 0) & (rows.norm == "linf")]
    records = []
    for key, group in smoothed.groupby(SMOOTHED, sort=False):
        own = base[(base.model == key[0]) & base.question_id.isin(group.question_id)]
        answers = {
            "clean": own[own.attack == CLEAN], "clean_smoothed": group[group.eps == 0],
            "attacked": own[own.attack == "pgd"], "attacked_smoothed": group[group.eps == eps],
        }  # fmt: skip
        told = dict(zip(SMOOTHED, key, strict=True)) | {"eps": eps}
        records.append(told | paired(answers, "attacked_smoothed", "attacked"))
    return pd.DataFrame(records, columns=SMOOTHING)


def paired(answers: dict[str, pd.DataFrame], first: str, second: str) -> dict:
    """Accuracies of a model under several conditions on the questions that all of them asked; first minus second.

    answers: the accuracy's name -> rows, one a question. n: how many questions; difference, with its 95 % paired
    bootstrap over images (ci_low, ci_high) and McNemar's exact p. Where one of them was not evaluated under some
    condition (`failed`), there is neither an accuracy nor a difference.
    """
    by_question = {name: part.set_index(["question_id", "image_path"]).outcome for name, part in answers.items()}
    told = pd.DataFrame(by_question).dropna()
    failed = int((told == FAILED).any(axis=1).sum())
    record = {"n": len(told), "failed": failed}
    if failed or told.empty:
        return record
    right = told == "right"
    found = _compared(right[[first, second]])
    return record | right.mean().to_dict() | {name: found[name] for name in ("difference", "ci_low", "ci_high", "p")}


def transfer(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of each model on the adversarial images of each (TRANSFER). rows: TRANSFER_ROWS of scripts/replay.py.

    Images that were made against a question the source answered wrongly on its clean image are the clean ones. Where
    an attack could not evaluate a question (`failed` of n) there is no accuracy.
    """
    require_columns(rows, TRANSFER_ROWS, "transfer rows")
    records = []
    for (source, target, attack, eps), part in rows.groupby(["source", "model", "attack", "eps"], sort=False):
        right, failed = part.outcome == "right", int((part.outcome == FAILED).sum())
        told = {"source": source, "target": target, "attack": attack, "eps": eps, "n": len(part), "failed": failed}
        if not failed:
            low, high = clustered_wilson(right, part.image_path)
            told |= {"accuracy": right.mean(), "ci_low": low, "ci_high": high}
        records.append(told)
    return pd.DataFrame(records, columns=TRANSFER)
