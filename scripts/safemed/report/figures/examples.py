"""Which questions are shown as examples, and what each model said before and after the attack."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from safemed.report.figures.style import MODALITIES, sorted_as


def compared(clean: pd.DataFrame, attacked: pd.DataFrame, eps: float) -> pd.DataFrame:
    """Every model's words before and after the attack, on the questions that the first model's rows choose.

    clean, attacked: ATTACK_ROWS of one model or several, clean and under attack at radii of which `eps` is used.
    """
    after = attacked[attacked.eps == eps]
    pairs = [(clean[clean.model == model], after[after.model == model]) for model in dict.fromkeys(clean.model)]
    chosen = choose_examples(*pairs[0])
    return pd.concat([compare_examples(chosen, *pair) for pair in pairs], ignore_index=True)


def choose_examples(clean: pd.DataFrame, attacked: pd.DataFrame, most: int = 6) -> list[str]:
    """The question_ids shown: right when clean, wrong or unparsable under attack, the first by id of each modality.

    A question that could not be evaluated is none. clean, attacked: attack rows of ONE model, clean and under attack.
    May be empty.
    """
    right = clean.loc[clean.outcome == "right", "question_id"]
    broken = attacked[attacked.question_id.isin(right) & attacked.outcome.isin(["wrong", "unparsable"])]
    firsts = broken.sort_values("question_id").drop_duplicates("modality").set_index("modality").question_id
    return [firsts[modality] for modality in sorted_as(firsts.index, MODALITIES)][:most]


def compare_examples(question_ids: Sequence[str], clean: pd.DataFrame, attacked: pd.DataFrame) -> pd.DataFrame:
    """One row a question for the model of these rows, its words before and after the attack.

    clean, attacked: attack rows of ONE model. Returns the attacked rows, with `row`, their index in the image
    archive, and clean_outcome, clean_answer and clean_text.

    Raises ValueError if the two are not of one model or a question is not among them.
    """
    models = sorted(set(clean.model) | set(attacked.model))
    if len(models) != 1:
        raise ValueError(f"clean and attacked rows must be of one model, got {', '.join(models)}; pair the files")
    if unknown := sorted(set(question_ids) - (set(clean.question_id) & set(attacked.question_id))):
        raise ValueError(
            f"model {models[0]} was not asked {', '.join(unknown)} both clean and attacked; re-run its attack"
        )
    before = clean.set_index("question_id")[["outcome", "answer", "text"]].add_prefix("clean_")
    shown = attacked.assign(row=np.arange(len(attacked))).set_index("question_id").loc[list(question_ids)]
    return shown.join(before).reset_index()
