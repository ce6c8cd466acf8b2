"""Randomized smoothing: votes under Gaussian noise -> an L2 radius (Cohen, Rosenfeld & Kolter 2019).

f is any function from an image to a class; here f is the parsed GENERATED answer, and an unparsable text is a class of
its own. g(x) = argmax_c P(f(x + N(0, sigma^2 I)) = c).
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta, norm

from safemed.stats import floor_to

ABSTAIN = ""
UNPARSABLE = "?"
RADIUS_DIGITS = 4


@dataclass(frozen=True)
class Certificate:
    """prediction: the class g returns, or ABSTAIN. radius: certified L2, in [0, 1] pixel units, 0 if abstained."""

    prediction: str
    radius: float


def lower_bound(successes: int, n: int, alpha: float) -> float:
    """Exact one-sided lower confidence bound of a binomial proportion (Clopper & Pearson 1934).

    With probability at least 1 - alpha over the n draws, the true proportion is at least the returned value.
    """
    return float(beta.ppf(alpha, successes, n - successes + 1)) if successes else 0.0


def certify(selection: list[str], estimation: list[str], sigma: float, alpha: float) -> Certificate:
    """Cohen et al. 2019, CERTIFY: the class is chosen on `selection`, its probability bounded on `estimation`.

    selection, estimation: classes of f at n_0 and n INDEPENDENT noisy images. With probability at least 1 - alpha, if
    the prediction is not ABSTAIN, g is constant within `radius` of x: radius = sigma * PhiInv(p_lower), rounded down.
    """
    names, counts = np.unique(selection, return_counts=True)
    chosen = str(names[counts.argmax()])
    p_lower = lower_bound(estimation.count(chosen), len(estimation), alpha)
    if p_lower <= 0.5:
        return Certificate(ABSTAIN, 0.0)
    return Certificate(chosen, floor_to(sigma * float(norm.ppf(p_lower)), RADIUS_DIGITS))


def check(sigma: float, alpha: float, n: int) -> None:
    """Refuse settings that cannot certify anything.

    Raises ValueError for sigma <= 0, alpha outside (0, 0.5), or an n at which even unanimous votes certify nothing.
    """
    if sigma <= 0:
        raise ValueError(f"certify.sigma must be > 0, got {sigma}")
    if not 0 < alpha < 0.5:
        raise ValueError(f"certify.alpha must be in (0, 0.5), got {alpha}")
    needed = math.floor(math.log(alpha) / math.log(0.5)) + 1
    if n < needed:
        raise ValueError(f"certify.n = {n} certifies nothing at alpha = {alpha}: at least {needed} draws are needed")
