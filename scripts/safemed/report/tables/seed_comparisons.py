"""Methods and variants against each other over several trainings of each, paired by seed and by question."""

from itertools import combinations

import pandas as pd

from safemed.data.prompts import VARIANTS
from safemed.report.tables.comparisons import WORST, worst_case
from safemed.report.tables.pairing import holm
from safemed.report.tables.rows import BASE, CLEAN, seed_of
from safemed.report.tables.seeds import student
from safemed.utils.stats import paired_difference, sign_flip

SEED_COMPARISONS = [
    "family", "images", "first", "second", "trainings", "n", "failed", "difference", "least", "greatest", "ci_low",
    "ci_high", "seeds_low", "seeds_high", "p", "p_holm",
]  # fmt: skip


def seed_comparisons(attacks: pd.DataFrame, eps: float) -> pd.DataFrame:
    """Pairs over all seeds, on clean images and in the worst case: one row of SEED_COMPARISONS each.

    attacks: ATTACK_ROWS of the clean images and of all attacks, of which the linf ones at `eps` make up the worst case.
    The two models of a seed start from one base and are asked the same questions: they are compared question by
    question, and the differences of all seeds put together.

    Columns:
    family: methods (every two of one variant) or variants (every two of one method).
    images: clean, or worst case, which is right on the clean image and under every linf attack at eps.
    first, second: {method}-{variant}.
    trainings: the seeds with which both were trained.
    n: the questions.
    failed: answers of all seeds that one of the two was not evaluated on; then there is no comparison.
    difference: accuracy of first minus second, the mean over seeds.
    least, greatest: the difference of a single seed.
    ci_low, ci_high: the difference's 95 % paired bootstrap over images, an image's questions and the answers of all
        seeds together, 2,000 draws: what other questions would give these very models.
    seeds_low, seeds_high: its 95 % interval by Student's t over the seeds: where the mean over many seeds lies, on
        these very questions. Missing for a single seed.
    p: exact test of flipped signs, an image's questions and the answers of all seeds together. Like ci_low and ci_high
        it is about these very trainings: it says nothing of other seeds.
    p_holm: p adjusted by Holm's (1979) method over the rows of the same family and images.
    """
    answers = worst_case(attacks, eps).rename(columns={"clean": CLEAN, "worst": WORST})
    answers = _of_every_seed(answers.assign(seed=seed_of(answers.model), kind=answers.method + "-" + answers.variant))
    by_variant = [part.kind.unique() for _, part in answers.groupby("variant", sort=False)]
    by_method = [_of_method(part) for _, part in answers.groupby("method", sort=False)]
    families = {"methods": by_variant, "variants": by_method}
    records = [
        {"family": family, "images": images, "first": first, "second": second}
        | _compared(answers[answers.kind.isin([first, second])], images, first, second)
        for family, groups in families.items()
        for images in (CLEAN, WORST)
        for group in groups
        for first, second in combinations(group, 2)
    ]
    table = pd.DataFrame(records, columns=SEED_COMPARISONS)
    return table.assign(p_holm=table.groupby(["family", "images"]).p.transform(holm))


def _of_every_seed(answers: pd.DataFrame) -> pd.DataFrame:
    """The answers, those of a base that is a checkpoint, which is one and the same for all seeds, repeated for each."""
    seeds, base = answers.seed.unique(), answers.method == BASE
    if set(answers.seed[base]) != {""}:
        return answers
    return pd.concat([answers[~base], *(answers[base].assign(seed=seed) for seed in seeds)], ignore_index=True)


def _of_method(part: pd.DataFrame) -> list[str]:
    """A method's variants, the later of VARIANTS first."""
    known = part.drop_duplicates("variant").set_index("variant").kind
    return [known[variant] for variant in reversed(VARIANTS) if variant in known]


def _compared(answers: pd.DataFrame, images: str, first: str, second: str) -> dict:
    """The numbers of SEED_COMPARISONS for the answers of two kinds of models."""
    wide = answers.pivot(index=["seed", "question_id", "image_path"], columns="kind", values=images)
    trained = answers.groupby("seed").kind.nunique() == 2
    both = wide[wide.index.get_level_values("seed").isin(trained.index[trained])]
    failed = int(both.isna().any(axis=1).sum())
    of_seed = both.groupby(level="seed")
    record = {"trainings": of_seed.ngroups, "n": both.index.unique("question_id").size, "failed": failed}
    if failed or both.empty:
        return record
    right = both.astype(bool)
    shown = right.index.get_level_values("image_path")
    by_seed = right.groupby(level="seed").mean()
    differences = by_seed[first] - by_seed[second]
    low, high = paired_difference(right[first], right[second], shown)
    seeds_low, seeds_high = student(differences)
    return record | {
        "difference": differences.mean(), "least": differences.min(), "greatest": differences.max(), "ci_low": low,
        "ci_high": high, "seeds_low": seeds_low, "seeds_high": seeds_high,
        "p": sign_flip(right[first], right[second], shown),
    }  # fmt: skip
