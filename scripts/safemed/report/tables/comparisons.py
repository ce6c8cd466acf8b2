"""Models against models on the same questions."""

from itertools import combinations

import pandas as pd

from safemed.data.prompts import FAILED, VARIANTS
from safemed.report.tables.pairing import compared, holm
from safemed.report.tables.rows import CLEAN, seed_of

COMPARISONS = [
    "family", "part", "images", "first", "second", "n", "failed", "first_accuracy", "second_accuracy", "difference",
    "ci_low", "ci_high", "p", "p_holm",
]  # fmt: skip
WORST = "worst case"


def comparisons(attacks: pd.DataFrame, eps: float) -> pd.DataFrame:
    """Pairs of models on the same questions, on clean images and in the worst case: one row of COMPARISONS each.

    attacks: ATTACK_ROWS of the clean images and of all attacks, of which the linf ones at `eps` make up the worst case.

    Columns:
    family: methods (every two of one variant), variants (every two of one method, such as think against instruct), or
        variants by modality; of one seed each.
    part: the modality, or all.
    images: clean, or worst case, which is right on the clean image and under every linf attack at eps.
    first, second: the models.
    n: the questions.
    failed: those that one of the two was not evaluated on; then there is no comparison.
    first_accuracy, second_accuracy: shares of the n questions.
    difference: first minus second.
    ci_low, ci_high: its 95 % paired bootstrap over images, 2,000 draws.
    p: exact test of flipped signs.
    p_holm: p adjusted by Holm's (1979) method over the rows of the same family, images and seed, and for variants by
        modality of the same method.
    """
    answers = worst_case(attacks, eps).rename(columns={"clean": CLEAN, "worst": WORST})
    by_seed = [part for _, part in answers.groupby(seed_of(answers.model), sort=False)]
    records = [row for part in by_seed for row in (*_methods(part), *_variants(part))]
    table = pd.DataFrame(records).reindex(columns=[*COMPARISONS, "method"])
    if table.empty:
        return table[COMPARISONS]
    table["p_holm"] = table.groupby(["family", "images", "method", seed_of(table["first"])]).p.transform(holm)
    return table[COMPARISONS]


def worst_case(attacks: pd.DataFrame, eps: float) -> pd.DataFrame:
    """One row a model and question: model, method, variant, modality, image_path, question_id, clean, worst.

    clean: whether right on the clean image; worst: whether right on it and under every linf attack at eps. Each is
    missing where it rests on an answer that was not evaluated.
    """
    linf = attacks[(attacks.norm == "linf") & ((attacks.attack == CLEAN) | (attacks.eps == eps))]
    keys = ["model", "method", "variant", "modality", "image_path", "question_id"]
    right = (linf.outcome == "right").astype("boolean").mask(linf.outcome == FAILED)
    grouped = linf.assign(worst=right, clean=right.where(linf.attack == CLEAN, True)).groupby(keys, sort=False)
    return grouped[["clean", "worst"]].agg(lambda answers: answers.all(skipna=False)).reset_index()


def _methods(answers: pd.DataFrame) -> list[dict]:
    """Every two methods of one variant."""
    by_variant = [group.model.unique() for _, group in answers.groupby("variant", sort=False)]
    return [row for models in by_variant for row in _family(answers, "methods", "all", list(combinations(models, 2)))]


def _variants(answers: pd.DataFrame) -> list[dict]:
    """Every two variants of each method, the later of VARIANTS first, on all questions and by modality."""
    records = []
    for method, group in answers.groupby("method", sort=False):
        models = group.drop_duplicates("variant").set_index("variant").model
        pairs = list(combinations([models[variant] for variant in reversed(VARIANTS) if variant in models], 2))
        records += _family(answers, "variants", "all", pairs)
        for modality, part in answers.groupby("modality"):
            of_part = _family(part, "variants by modality", modality, pairs)
            records += [record | {"method": method} for record in of_part]
    return records


def _family(answers: pd.DataFrame, family: str, part: str, pairs: list[tuple[str, str]]) -> list[dict]:
    """The rows of `comparisons` for some pairs of models, without the adjusted p."""
    records = []
    for images in (CLEAN, WORST):
        wide = answers.pivot(index=["question_id", "image_path"], columns="model", values=images)
        for first, second in pairs:
            if not {first, second} <= set(wide):
                continue
            both = wide[[first, second]]
            failed = int(both.isna().any(axis=1).sum())
            record = {"family": family, "part": part, "images": images, "first": first, "second": second}
            record |= {"n": len(both), "failed": failed, "method": ""}
            records.append(record if failed else record | compared(both.astype(bool)))
    return records
