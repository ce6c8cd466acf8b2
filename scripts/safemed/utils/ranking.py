"""How well scores rank right answers above wrong ones: the AUROC, its interval, and differences, with clusters."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

FEWEST = 10  # clusters with a right answer, and with a wrong one, that an interval by resampling needs
DRAWS = 2000


def auroc(right: Sequence[bool], scores: Sequence[float]) -> float:
    """The chance that a right answer has a greater score than a wrong one, ties counting half; nan without both."""
    return float(_pairs(right, scores).mean()) if 0 < np.sum(right) < len(right) else float("nan")


def auroc_interval(
    right: Sequence[bool], scores: Sequence[float], clusters: Sequence, confidence: float = 0.95
) -> tuple[float, float]:
    """An interval for the AUROC of scores [n] in right answers [n] against wrong ones: (low, high); nan without both.

    Newcombe's method 5 (2006, Statistics in Medicine 25:559), a score interval with Hanley & McNeil's variance, which
    does not shrink to a point where all right answers are surer than all wrong ones. Answers with an equal cluster
    label (the questions of one image) may depend on each other: their numbers are divided first by how many times
    larger Obuchowski's clustered variance (1997, Biometrics 53:567) is than DeLong's, as `stats.clustered_wilson` does.
    Where the data cannot tell, the answers of a cluster are taken to agree perfectly.
    """
    right = np.asarray(right, bool)
    if not 0 < right.sum() < len(right):
        return float("nan"), float("nan")
    found, (m, n) = auroc(right, scores), _effective_sizes(right, scores, clusters)
    z = float(norm.ppf((1 + confidence) / 2))
    return _lower_end(found, m, n, z), 1 - _lower_end(1 - found, m, n, z)


def auroc_difference(
    first: tuple[Sequence[bool], Sequence[float]], second: tuple[Sequence[bool], Sequence[float]], clusters: Sequence,
    confidence: float = 0.95, seed: int = 0,
) -> tuple[float, float]:  # fmt: skip
    """Percentile bootstrap interval of the AUROC of `first` less that of `second`: (low, high).

    first, second: which answers [n] are right, and their scores [n], of the same n questions. Whole clusters are drawn
    with both, so that neither the pairing nor the dependence within an image is lost. nan where fewer than FEWEST
    clusters hold a right answer, or a wrong one, of either: of so few a bootstrap says nothing. Draws without both
    kinds, of which there are few then, are left out.
    """
    _, label = np.unique(np.asarray(clusters), return_inverse=True)
    for right in (np.asarray(one[0], bool) for one in (first, second)):
        if min(len(set(label[right])), len(set(label[~right]))) < FEWEST:
            return float("nan"), float("nan")
    k = label.max() + 1
    times = np.random.default_rng(seed).multinomial(k, np.full(k, 1 / k), size=DRAWS)[:, label]  # [draws, n]
    apart = _weighted(*first, times) - _weighted(*second, times)
    low, high = np.nanquantile(apart, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _pairs(right: Sequence[bool], scores: Sequence[float]) -> np.ndarray:
    """For each right answer (row) and wrong one (column) 1 where the right one is surer, 0.5 where both are as sure."""
    right, scores = np.asarray(right, bool), np.asarray(scores, float)
    return (np.sign(scores[right][:, None] - scores[~right]) + 1) / 2


def _weighted(right: Sequence[bool], scores: Sequence[float], times: np.ndarray) -> np.ndarray:
    """The AUROC of each draw that takes each answer so many times, times [draws, n]; nan where it takes one kind."""
    right = np.asarray(right, bool)
    of_right, of_wrong = times[:, right].astype(float), times[:, ~right].astype(float)
    pairs = of_right.sum(1) * of_wrong.sum(1)
    won = ((of_right @ _pairs(right, scores)) * of_wrong).sum(1)
    return np.divide(won, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def _effective_sizes(right: np.ndarray, scores: Sequence[float], clusters: Sequence) -> tuple[float, float]:
    """The numbers of right and of wrong answers, as many independent ones as would tell as much."""
    _, label = np.unique(np.asarray(clusters), return_inverse=True)
    pairs = _pairs(right, scores)
    m, n = pairs.shape
    sizes = [np.bincount(label[kind], minlength=label.max() + 1) for kind in (right, ~right)]  # of each cluster
    parts = (pairs.mean(1) - pairs.mean(), pairs.mean(0) - pairs.mean())  # DeLong's, of each right and wrong answer
    sums = [np.bincount(label[kind], part, label.max() + 1) for kind, part in zip((right, ~right), parts, strict=True)]
    k, (k_right, k_wrong) = label.max() + 1, [int((size > 0).sum()) for size in sizes]
    if min(k_right, k_wrong) < 2 or not (parts[0].any() or parts[1].any()):
        return m**2 / (sizes[0] ** 2).sum(), n**2 / (sizes[1] ** 2).sum()
    plain = (parts[0] ** 2).sum() / (m * (m - 1)) + (parts[1] ** 2).sum() / (n * (n - 1))
    clustered = k_right / (k_right - 1) * (sums[0] ** 2).sum() / m**2
    clustered += k_wrong / (k_wrong - 1) * (sums[1] ** 2).sum() / n**2
    clustered += 2 * k / (k - 1) * (sums[0] * sums[1]).sum() / (m * n)
    effect = max(1.0, clustered / plain)
    return m / effect, n / effect


def _lower_end(found: float, m: float, n: float, z: float) -> float:
    """The least AUROC that is no more than z of its own standard errors below the one found."""
    if found == 0:
        return 0.0
    more = max(0.0, (m + n) / 2 - 1)

    def short(true: float) -> float:
        spread = true * (1 - true) * (1 + more * ((1 - true) / (2 - true) + true / (1 + true))) / (m * n)
        return found - true - z * spread**0.5

    return float(brentq(short, 0.0, min(found, 1 - 1e-12)))
