"""What the questions give away without the image: chance, and the best guess from the text alone."""

from collections import Counter

import numpy as np
import pandas as pd

from safemed.data import normalise
from safemed.prompts import LETTERS, gold_text


def option_prior(train: pd.DataFrame) -> Counter:
    """How often each option's text is a right answer. train: columns options (list), gold (letter)."""
    return Counter(normalise(gold_text(row)) for row in train.to_dict("records"))


def guess(options: list[str], gold: str, prior: Counter) -> float:
    """Probability of being right by choosing the option most often right in training, ties broken at random."""
    scores = np.array([prior[normalise(option)] for option in options])
    best = scores == scores.max()
    return float(best[LETTERS.index(gold)] / best.sum())


def baselines(train: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    """Columns modality, n, chance, blind; a row a modality and one named "all".

    chance: mean of 1 / number of options. blind: expected accuracy of the option prior of the training split, which
    sees neither image nor question. train, test: columns modality, options, gold.
    """
    prior = option_prior(train)
    test = test.assign(
        chance=[1 / len(options) for options in test["options"]],
        blind=[guess(o, g, prior) for o, g in zip(test["options"], test["gold"], strict=True)],
    )
    parts = [("all", test), *test.groupby("modality")]
    return pd.DataFrame(
        {"modality": name, "n": len(part), "chance": part["chance"].mean(), "blind": part["blind"].mean()}
        for name, part in parts
    )


def leaks(splits: pd.DataFrame) -> pd.DataFrame:
    """Images that stand in more than one split: columns image_key, splits. Empty when the splits are disjoint."""
    found = splits.groupby("image_key")["split"].agg(lambda s: "|".join(sorted(set(s))))
    return found[found.str.contains("|", regex=False)].rename("splits").reset_index()


def composition(questions: pd.DataFrame) -> pd.DataFrame:
    """Questions a split, modality and question type. questions: columns split, modality, question_type."""
    counts = questions.groupby(["split", "modality", "question_type"]).size()
    return counts.rename("questions").reset_index()
