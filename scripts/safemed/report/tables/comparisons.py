"""Models against models on the same questions."""

from itertools import combinations

import pandas as pd

from safemed.data.prompts import FAILED
from safemed.utils.stats import holm, mcnemar, paired_difference

COMPARISONS = [
    "family", "part", "images", "first", "second", "n", "failed", "first_accuracy", "second_accuracy", "difference",
    "ci_low", "ci_high", "p", "p_holm",
]  # fmt: skip
CLEAN, WORST = "clean", "worst case"


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
