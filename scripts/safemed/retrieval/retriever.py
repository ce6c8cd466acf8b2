"""A retriever of reports: images by the cosine of their features, words by BM25, and both added up."""

from collections.abc import Sequence

import bm25s
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


class Retriever:
    """Searches N entries, which have features [N, D] of an image and a text each.

    The score of an entry is (1 - weight) * (1 + cosine) / 2 by the image plus weight * BM25 by the words, both divided
    by the greatest that any entry reaches for the query: the convex combination that Bruch et al. (2023, ACM TOIS
    42:20) recommend over reciprocal ranks. Under these, small differences between the words of many like reports would
    outweigh the image. Cosines are of features minus `mean` [D], the mean over a corpus, which all images share. BM25
    is in the form of Lucene, as bm25s computes it.
    """

    def __init__(self, features: Tensor, texts: Sequence[str], mean: Tensor, weight: float):
        self.mean, self.weight = mean, weight
        self.features = F.normalize(features - mean, dim=1)
        self.words = bm25s.BM25()
        self.words.index(_tokens(texts), show_progress=False)

    def ranked(
        self, features: Tensor, texts: Sequence[str], k: int, without: Sequence[int] | None = None
    ) -> np.ndarray:
        """The k best entries for each of Q queries, best first, of equal ones the earlier: their numbers [Q, k].

        features [Q, D] and texts [Q] of the queries; without [Q]: the entry that each must not find, such as its own.
        """
        found, words, seen, last = [], {}, None, None
        for i, text in enumerate(texts):
            if text not in words:
                words[text] = self.weight * _to_one(self._word_scores(text))
            if last is None or not torch.equal(features[i], last):  # the questions of an image follow each other
                last, cosines = features[i], self.cosines(features[i][None])[0].numpy()
                seen = (1 - self.weight) * _to_one((1 + cosines) / 2)
            score = seen + words[text]
            if without is not None:
                score[without[i]] = -1
            found.append(_best(score, k))
        return np.array(found)

    def cosines(self, features: Tensor) -> Tensor:
        """How alike images are to the entries': [Q, N], of features [Q, D]."""
        return F.normalize(features - self.mean, dim=1) @ self.features.T

    def _word_scores(self, text: str) -> np.ndarray:
        known = [word for word in _tokens([text])[0] if word in self.words.vocab_dict]
        return self.words.get_scores(known) if known else np.zeros(len(self.features), np.float32)


def query_text(question: dict) -> str:
    """The words that reports are sought by: the question and its options, of which nothing says which is right."""
    return " ".join([question["question"], *question["options"]])


def _tokens(texts: Sequence[str]) -> list[list[str]]:
    """The words of each text in lower case, without English stop words."""
    return bm25s.tokenize(list(texts), stopwords="en", return_ids=False, show_progress=False)


def _to_one(scores: np.ndarray) -> np.ndarray:
    """Scores >= 0 over the greatest; all 0 where that is 0."""
    return scores / (scores.max() or 1)


def _best(scores: np.ndarray, k: int) -> np.ndarray:
    """The places of the k greatest scores, greatest first, of equal ones the earlier first."""
    k = min(k, len(scores))
    places = np.flatnonzero(scores >= np.partition(scores, -k)[-k])
    return places[np.argsort(-scores[places], kind="stable")][:k]
