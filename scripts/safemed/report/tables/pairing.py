"""Two sets of answers to the same questions: accuracies, and their difference with its interval and p-value."""

import pandas as pd
from statsmodels.stats.multitest import multipletests

from safemed.data.prompts import FAILED
from safemed.report.tables.rows import seed_of
from safemed.utils.stats import paired_difference, sign_flip


def compared(both: pd.DataFrame) -> dict:
    """first_accuracy, second_accuracy, and their difference with its 95 % paired bootstrap over images (ci_low,
    ci_high) and the exact p of flipped signs.

    both: whether right, columns first and second, bool [n], indexed by question_id and image_path.
    """
    first, second = (both[column] for column in both)
    images = both.index.get_level_values("image_path")
    low, high = paired_difference(first, second, images)
    return {
        "first_accuracy": first.mean(), "second_accuracy": second.mean(), "difference": first.mean() - second.mean(),
        "ci_low": low, "ci_high": high, "p": sign_flip(first, second, images),
    }  # fmt: skip


def paired(answers: dict[str, pd.DataFrame], first: str, second: str) -> dict:
    """Accuracies of a model under several conditions on the questions that all of them asked; first minus second.

    answers: the accuracy's name -> rows, one a question. n: how many questions; difference, with its 95 % paired
    bootstrap over images (ci_low, ci_high) and the exact p of flipped signs. Where one of them was not evaluated under
    some condition (`failed`), there is neither an accuracy nor a difference.
    """
    by_question = {name: part.set_index(["question_id", "image_path"]).outcome for name, part in answers.items()}
    outcomes = pd.DataFrame(by_question).dropna()
    failed = int((outcomes == FAILED).any(axis=1).sum())
    record = {"n": len(outcomes), "failed": failed}
    if failed or outcomes.empty:
        return record
    right = outcomes == "right"
    found = compared(right[[first, second]])
    return record | right.mean().to_dict() | {name: found[name] for name in ("difference", "ci_low", "ci_high", "p")}


def holm(p_values: pd.Series) -> pd.Series:
    """The p-values adjusted for their number by Holm's (1979) method; missing ones stay so, and do not count."""
    there = p_values.dropna()
    if there.empty:
        return p_values
    return pd.Series(multipletests(there, method="holm")[1], there.index).reindex(p_values.index)


def holm_by_seed(p_values: pd.Series, models: pd.Series) -> pd.Series:
    """The p-values adjusted by Holm's method among those of the models of each seed."""
    return p_values.astype(float).groupby(seed_of(models)).transform(holm)
