"""Hardened questions: distractors that the text alone cannot tell from the answer.

Published distractors were written to be wrong, and most are never right anywhere: choosing the option that is most
often a right answer solves OmniMedVQA without an image. Here the distractors of a question are other right answers of
its pool (same modality, dataset and question type; yes and no among themselves), drawn such that, within a pool, every
option of a set of options is the right one equally often. No choice made from the options alone then beats 1 / K,
except where one answer is right in more than a K-th of its pool, which no choice of distractors can hide, and in the
few pools where options that could both be right must be kept apart. What the question's own words tell stays: see the
audit's linear model.
"""

import re
import zlib
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from safemed.data.prompts import LETTERS, gold_text
from safemed.data.records import normalise

ROUNDS = 1000  # of the fixed point, at most
CLOSE = 1e-9  # relative change of the weights at which it has converged
YES_NO = ("yes", "no")
DRAWS = 100  # of a set of distractors in which no two mean the same, at most; then one less
CLOSED = re.compile(r"(yes|no)\s*([,.;:]|$)", re.IGNORECASE)  # "No, ..." answers "is it ...?"; "No mass" does not


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

    def distractors(self, answer: str, right: set[str], rng: np.random.Generator) -> list[str]:
        """n_options - 1 other answers, a set drawn with probability proportional to the product of its weights.

        right: answers that are right on the image, of which none may mean the same as a distractor; nor may two
        distractors (see `overlap`). Fewer, down to none, where the pool does not hold so many.
        """
        fixed: list[str] = []
        for text in self.always:
            fixed += [] if _meets(text, {answer, *right, *fixed}) else [text]
        rest = [i for i, text in enumerate(self.others) if not _meets(text, {answer, *right, *fixed})]
        for k in range(min(self.n_options - 1 - len(fixed), len(rest)), 0, -1):
            for _ in range(DRAWS):
                drawn = [self.others[rest[i]] for i in _draw(self.weights[rest], k, rng)]
                if not any(overlap(a, b) for a, b in combinations(drawn, 2)):
                    return fixed + drawn
        return fixed


def harden(questions: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The questions with hardened `options` and `gold`; those to whose answer no distractor is found are left out.

    questions: columns question_id, modality, dataset, question_type, image_path, options (list), gold (letter). Up to
    four options, fewer where the pool holds fewer. One option alone is right: no distractor overlaps with the answer to
    any question on the image. Texts are written in one way: one form an answer, no trailing dot. A closed question is
    answered by Yes or No alone. The answer to a Modality Recognition question becomes the modality's clean name, and
    its pool is that of all modalities: within one, all right answers mean the same. Deterministic in (questions, seed),
    a question at a time.
    """
    asked = questions.assign(answer=[_answer(row) for row in questions.to_dict("records")])
    asked["kind"] = pd.Series([_kind(row) for row in asked.to_dict("records")], asked.index, dtype=object)
    forms = _common_forms(asked["answer"])
    asked["answer"] = asked["answer"].map(normalise)
    pools = {kind: make_pool(Counter(part)) for kind, part in asked.groupby("kind")["answer"] if part.nunique() > 1}
    right = asked[~asked["answer"].isin(YES_NO)].groupby("image_path")["answer"].agg(set).to_dict()
    drawn = {
        row["question_id"]: _reorder(pools[row["kind"]], row["answer"], right.get(row["image_path"], set()), rng)
        for row in asked[asked["kind"].isin(list(pools))].to_dict("records")
        for rng in [np.random.default_rng(zlib.crc32(f"{seed}:{row['question_id']}".encode()))]
    }
    found = [name for name, (options, _) in drawn.items() if len(options) > 1]
    hardened = questions[questions["question_id"].isin(found)].copy()
    hardened["options"] = [[forms[text] for text in drawn[name][0]] for name in hardened["question_id"]]
    hardened["gold"] = [drawn[name][1] for name in hardened["question_id"]]
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


def overlap(one: str, other: str) -> bool:
    """Whether all words of one answer stand in the other, which may then be right where it is: oedema, lung oedema."""
    words, others = (set(re.findall(r"\w+", text)) for text in (one, other))
    return words <= others or others <= words


def _meets(text: str, answers: set[str]) -> bool:
    return any(overlap(text, answer) for answer in answers)


def _reorder(pool: Pool, answer: str, right: set[str], rng: np.random.Generator) -> tuple[list[str], str]:
    """Options in random order, and the answer's letter."""
    options = [answer, *pool.distractors(answer, right, rng)]
    order = rng.permutation(len(options))
    return [options[i] for i in order], LETTERS[order.tolist().index(0)]


def _kind(row: dict) -> Hashable:
    """What a question shares its pool with. row: with its `answer`."""
    if row["question_type"] == "Modality Recognition":
        return row["question_type"]
    return row["modality"], row["dataset"], row["question_type"], normalise(row["answer"]) in YES_NO


def _answer(row: dict) -> str:
    """A question's right answer as it is written; of "No, the tail looks normal" the No."""
    if row["question_type"] == "Modality Recognition":
        return row["modality"]
    text = gold_text(row)
    if closed := CLOSED.match(text):
        return closed[1].capitalize()
    return re.sub(r"[\s_]+", " ", text.strip().removesuffix("."))


def _common_forms(texts: pd.Series) -> dict[str, str]:
    """For each answer, as `normalise` sees it, the form that it is most often written in."""
    counts = Counter(texts)
    return {normalise(text): text for text in sorted(counts, key=lambda text: (counts[text], text))}
