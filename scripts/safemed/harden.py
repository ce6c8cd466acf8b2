"""Hardened questions: distractors that the text alone cannot tell from the answer.

Published distractors were written to be wrong, and most are never right anywhere: choosing the option that is most
often a right answer solves OmniMedVQA without an image. Here the distractors of a question are other right answers of
its pool (same modality, dataset and question type; yes and no among themselves), drawn such that, within a pool, every
option of a set of options is the right one equally often. No choice made from the options alone then beats 1 / K,
except where one answer is right in more than a K-th of its pool, which no choice of distractors can hide. What the
question's own words tell stays: see the audit's linear model.
"""

import re
import zlib
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from safemed.prompts import LETTERS, gold_text
from safemed.records import normalise

ROUNDS = 1000  # of the fixed point, at most
CLOSED = re.compile(r"(yes|no)\s*([,.;:]|$)", re.IGNORECASE)  # "No, ..." answers "is it ...?"; "No mass" does not
CLOSE = 1e-9  # relative change of the weights at which it has converged


@dataclass(frozen=True)
class Pool:
    """The right answers that questions of one kind share.

    always: answers too frequent to be hidden, which every set of options holds. others: the rest, and the weights [n]
    they are drawn with.
    """

    always: list[str]
    others: list[str]
    weights: np.ndarray
    n_options: int

    def distractors(self, answer: str, rng: np.random.Generator) -> list[str]:
        """n_options - 1 other answers; those drawn are a set with probability proportional to its weights' product."""
        fixed = [text for text in self.always if text != answer]
        rest = [i for i, text in enumerate(self.others) if text != answer]
        drawn = _draw(self.weights[rest], self.n_options - 1 - len(fixed), rng)
        return fixed + [self.others[rest[i]] for i in drawn]


def harden(questions: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The questions with hardened `options` and `gold`; those whose pool holds a single answer are left out.

    questions: columns question_id, modality, dataset, question_type, options (list), gold (letter). Up to four options,
    fewer where the pool holds fewer. Texts are written in one way: one form an answer, no trailing dot. The answer to a
    Modality Recognition question becomes the modality's clean name, and its pool is that of all modalities: within one,
    all right answers mean the same. Deterministic in (questions, seed), a question at a time.
    """
    answers = pd.Series([_answer(row) for row in questions.to_dict("records")], questions.index, dtype=object)
    kinds = pd.Series([_kind(row) for row in questions.to_dict("records")], questions.index, dtype=object)
    forms = _common_forms(answers)
    answers = answers.map(normalise)
    pools = {kind: make_pool(Counter(part)) for kind, part in answers.groupby(kinds) if part.nunique() > 1}
    kept = kinds.isin(list(pools))
    hardened = questions[kept].copy()
    drawn = [
        _reorder(pools[kind], answer, np.random.default_rng(zlib.crc32(f"{seed}:{name}".encode())))
        for name, kind, answer in zip(hardened["question_id"], kinds[kept], answers[kept], strict=True)
    ]
    hardened["options"] = [[forms[text] for text in options] for options, _ in drawn]
    hardened["gold"] = [letter for _, letter in drawn]
    return hardened


def make_pool(counts: Counter, most_options: int = 4) -> Pool:
    """The pool of answers right so many times, with weights under which options tell least of the answer.

    counts: at least two answers. An answer right in a K-th of the questions or more stands in every set of options.
    With K' options left for the others, answer b right in a share f_b of them, and sets S drawn with probability
    proportional to prod_{b in S} w_b, every option of a set is right equally often exactly when f_b is proportional to
    w_b e_{K'-1}(w without b), e_k being the elementary symmetric polynomials: conditional Poisson sampling with
    inclusion probabilities K' f_b (Chen, Dempster and Liu 1994), solved by its fixed point.
    """
    others = sorted(counts, key=lambda text: (-counts[text], text))
    n_options, always = min(most_options, len(others)), []
    while len(always) < n_options - 1 and counts[others[0]] * (n_options - len(always)) >= _total(counts, others):
        always.append(others.pop(0))
    f = np.array([counts[text] for text in others], float)
    return Pool(always, others, _weights(f / f.sum(), n_options - len(always)), n_options)


def _total(counts: Counter, texts: list[str]) -> int:
    return sum(counts[text] for text in texts)


def _weights(f: np.ndarray, k: int) -> np.ndarray:
    """Weights [n] of conditional Poisson sampling of k items with inclusion probabilities k f, each below 1."""
    w = f
    for _ in range(ROUNDS):
        ahead, behind = symmetric(w, k - 1)[:-1], symmetric(w[::-1], k - 1)[-2::-1]  # without item a: before, after it
        new = f / (ahead * behind[:, ::-1]).sum(1)
        new /= new.sum()
        if np.abs(new / w - 1).max() < CLOSE:
            break
        w = new
    return w


def symmetric(weights: np.ndarray, k: int) -> np.ndarray:
    """The elementary symmetric polynomials e_0 .. e_k of the first i weights, for i = 0 .. n: [n + 1, k + 1]."""
    e = np.zeros((len(weights) + 1, k + 1))
    e[:, 0] = 1
    for i, w in enumerate(weights):
        e[i + 1, 1:] = e[i, 1:] + w * e[i, :-1]
    return e


def _draw(weights: np.ndarray, k: int, rng: np.random.Generator) -> list[int]:
    """Indices of k items, a set with probability proportional to the product of its weights."""
    e, left, chosen = symmetric(weights, k), k, []
    for i in reversed(range(len(weights))):
        if left and rng.random() * e[i + 1, left] < weights[i] * e[i, left - 1]:
            chosen.append(i)
            left -= 1
    return chosen


def _reorder(pool: Pool, answer: str, rng: np.random.Generator) -> tuple[list[str], str]:
    """Options in random order, and the answer's letter."""
    options = [answer, *pool.distractors(answer, rng)]
    order = rng.permutation(len(options))
    return [options[i] for i in order], LETTERS[order.tolist().index(0)]


def _kind(row: dict) -> Hashable:
    """What a question shares its pool with."""
    if row["question_type"] == "Modality Recognition":
        return row["question_type"]
    closed = CLOSED.match(gold_text(row)) is not None
    return row["modality"], row["dataset"], row["question_type"], closed


def _answer(row: dict) -> str:
    """A question's right answer as it is written."""
    text = row["modality"] if row["question_type"] == "Modality Recognition" else gold_text(row)
    return re.sub(r"[\s_]+", " ", text.strip().removesuffix("."))


def _common_forms(texts: pd.Series) -> dict[str, str]:
    """For each answer, as `normalise` sees it, the form that it is most often written in."""
    counts = Counter(texts)
    return {normalise(text): text for text in sorted(counts, key=lambda text: (counts[text], text))}
