"""Randomized smoothing: votes under Gaussian noise -> an L2 radius (Cohen, Rosenfeld & Kolter 2019).

f is any function from an image to a class. g(x) = argmax_c P(f(x + N(0, sigma^2 I)) = c) is constant within the L2
radius sigma * PhiInv(p_A) of x, where p_A is the probability of its class. p_A is bounded from votes, in one of two
modes:

* fixed: n votes, then Clopper & Pearson's bound (Cohen et al. 2019, CERTIFY);
* sequential: votes until the radii asked for are decided, then a bound that holds at ANY time of stopping, from a
  confidence sequence (a mixture of likelihood ratios over Beta(1/2, 1/2), Robbins 1970). Looking at Clopper & Pearson's
  after every batch, and stopping when it suits, would not hold.

Both may be randomised by one uniform number a question, independent of the votes: sharper, and as sound.
"""

import bisect
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaincc, betaln
from scipy.stats import beta, betabinom, binom, norm

from safemed.utils.stats import floor_to

ABSTAIN = ""
RADIUS_DIGITS = 4
STOPS = ("decided", "futile", "exhausted")
FIRST_LOOK = 16  # estimation votes before the first look; later looks come after an eighth more
FUTILITY = 0.02  # a radius is given up where it would be certified with less probability: costs power, never soundness


@dataclass(frozen=True)
class Certificate:
    """prediction: the class g returns, or ABSTAIN. radius: certified L2, in [0, 1] pixel units, 0 if abstained."""

    prediction: str
    radius: float


@dataclass(frozen=True)
class Procedure:
    """How votes become a certificate. n0: votes that select the class; n: (at most) votes that bound its probability.

    alpha: failure probability a question. radii: those that a sequential certificate is to decide.
    """

    sigma: float
    n0: int
    n: int
    alpha: float
    mode: str = "sequential"
    radii: tuple[float, ...] = (0.0,)
    randomised: bool = False

    def bound(self, successes: int, n: int, coin: float) -> float:
        """The lower bound of p_A; coin: a uniform number in [0, 1), or 1 for a bound that is not randomised."""
        lower = anytime_lower_bound if self.mode == "sequential" else lower_bound
        return lower(successes, n, self.alpha, coin)

    def certificate(self, chosen: str, p_lower: float) -> Certificate:
        """The certificate of a class whose probability is at least p_lower; the radius is rounded down."""
        if p_lower <= 0.5:
            return Certificate(ABSTAIN, 0.0)
        return Certificate(chosen, floor_to(self.sigma * float(norm.ppf(p_lower)), RADIUS_DIGITS))


def lower_bound(successes: int, n: int, alpha: float, coin: float = 1.0) -> float:
    """Exact one-sided lower confidence bound of a binomial proportion (Clopper & Pearson 1934).

    With probability at least 1 - alpha over the n draws, the true proportion is at least the returned value. coin < 1:
    a uniform number drawn apart, which makes the probability exactly 1 - alpha (Stevens 1950, Biometrika 37:117).
    """
    if coin >= 1:
        return float(beta.ppf(alpha, successes, n - successes + 1)) if successes else 0.0

    def excess(p: float) -> float:
        return binom.sf(successes, n, p) + _never_certain(coin, alpha) * binom.pmf(successes, n, p) - alpha

    return float(brentq(excess, 0.0, 1.0)) if excess(0.0) < 0 else 0.0


def log_e_value(successes: int, n: int, p: float) -> float:
    """Log of the evidence after n draws against a proportion of AT MOST p in (0, 1]: an e-process.

    The likelihood ratio to p, averaged over Beta(1/2, 1/2) restricted to proportions above p. For any true proportion
    up to p it is a non-negative supermartingale that starts at 1, so that it EVER reaches 1 / alpha with probability at
    most alpha (Ville 1939), whatever decides when to stop.
    """
    if p >= 1:
        return -math.inf  # nothing speaks against certainty, which far radii round to
    failures = n - successes
    above = betaincc(successes + 0.5, failures + 0.5, p) / betaincc(0.5, 0.5, p)  # of the mixture, of its prior
    if not above:
        return -math.inf
    mixture = betaln(successes + 0.5, failures + 0.5) - betaln(0.5, 0.5) + math.log(above)
    return float(mixture - successes * math.log(p) - failures * math.log1p(-p))


def anytime_lower_bound(successes: int, n: int, alpha: float, coin: float = 1.0) -> float:
    """Lower confidence bound of a proportion that holds at all n at once.

    With probability at least 1 - alpha the true proportion is at least the bound at EVERY n: the bound is the smallest
    p that `log_e_value` does not refute. coin < 1: a uniform number drawn apart, for use at ONE time of stopping, where
    evidence of coin / alpha will do (Ramdas & Manole 2023, randomised Ville's inequality).
    """
    enough = math.log(_never_certain(coin, alpha) / alpha)
    share, least = successes / n, 1e-9
    if not successes or log_e_value(successes, n, least) < enough:
        return 0.0
    most = min(share, 1 - 1e-12)
    if log_e_value(successes, n, most) >= enough:  # only under a small coin
        return most
    return float(brentq(lambda p: log_e_value(successes, n, p) - enough, least, most, xtol=1e-12))


def _never_certain(coin: float, alpha: float) -> float:
    """A coin no smaller than 2 alpha: a larger one only lowers the bound, and no finite sample proves certainty."""
    return max(coin, 2 * alpha)


@dataclass
class Votes:
    """The votes on one question, asked for bit by bit, and what they certify.

    The first n0 select the class, the next ones, independent of them, bound its probability. What is decided, and when,
    depends on this question's votes alone, in whatever portions they come.
    """

    procedure: Procedure
    coin: float = 1.0  # uniform in [0, 1), drawn apart from the votes
    drawn: int = 0
    successes: int = 0
    p_lower: float = 0.0
    evidence: tuple[int, int] = (0, 0)  # successes and votes that p_lower rests on
    stopped: str = ""  # "" while votes are wanted; decided, futile (nothing certified) or exhausted (all n votes taken)
    chosen: str = ABSTAIN
    _selection: list[str] = field(default_factory=list)
    _look: int = 0  # estimation votes at which the next look is due
    _open: list[float] = field(default_factory=list)  # probabilities that stand for the radii still undecided

    def __post_init__(self):
        p = self.procedure
        self._look = p.n if p.mode == "fixed" else min(FIRST_LOOK, p.n)
        self._open = sorted(float(norm.cdf(radius / p.sigma)) for radius in p.radii)

    @property
    def n(self) -> int:
        """Estimation votes so far."""
        return max(0, self.drawn - self.procedure.n0)

    def wanted(self) -> int:
        """How many more votes are needed before anything can be decided; 0: none, it is."""
        return 0 if self.stopped else self.procedure.n0 + self._look - self.drawn

    def add(self, classes: Sequence[str]) -> None:
        """Count votes, at most `wanted` of them."""
        if len(classes) > self.wanted():
            raise ValueError(f"{len(classes)} votes given, {self.wanted()} wanted")
        selecting = self.procedure.n0 - len(self._selection)
        self._selection += classes[:selecting]
        self.drawn += len(classes)
        if len(self._selection) == self.procedure.n0 and self.chosen == ABSTAIN:
            names, counts = np.unique(self._selection, return_counts=True)
            self.chosen = str(names[counts.argmax()])
        self.successes += list(classes[selecting:] if selecting > 0 else classes).count(self.chosen)
        if not self.wanted():
            self._decide()

    def certificate(self) -> Certificate:
        """What the votes certify. With probability at least 1 - alpha, g is constant within the radius.

        Raises ValueError before enough votes have come.
        """
        if not self.stopped:
            raise ValueError(f"{self.wanted()} more votes are wanted")
        return self.procedure.certificate(self.chosen, self.p_lower)

    def _decide(self) -> None:
        """A look: stop, or say when the next one is due."""
        procedure, open_before = self.procedure, len(self._open)
        self._open = [p for p in self._open if not self._proven(p)]
        if len(self._open) < open_before:
            self._prove(1.0)
        self._open = [p for p in self._open if not self._futile(p)]
        ended = procedure.mode == "fixed" or self.n >= procedure.n
        if not ended and self._open:
            self._look = min(procedure.n, self.n + max(FIRST_LOOK, self.n // 8))
            return
        self._prove(self.coin if procedure.randomised else 1.0)
        self.stopped = "exhausted" if ended else "decided" if self.p_lower > 0.5 else "futile"

    def _prove(self, coin: float) -> None:
        """Keep the highest bound so far: all of them hold at once."""
        bound = self.procedure.bound(self.successes, self.n, coin)
        if bound >= self.p_lower:
            self.p_lower, self.evidence = bound, (self.successes, self.n)

    def _proven(self, p: float) -> bool:
        """Whether the votes prove that the class has a probability above p. A fixed procedure does not look."""
        return self.procedure.mode == "sequential" and (
            log_e_value(self.successes, self.n, p) >= -math.log(self.procedure.alpha)
        )

    def _futile(self, p: float) -> bool:
        """Whether the votes that are left will hardly prove p: the predictive probability under the same Beta(1/2,
        1/2).
        """
        left = self.procedure.n - self.n
        lacking = successes_needed(self.procedure.n, p, self.procedure.alpha) - self.successes
        if not 0 < lacking <= left:
            return lacking > left
        failures = self.n - self.successes
        return bool(betabinom.sf(lacking - 1, left, self.successes + 0.5, failures + 0.5) < FUTILITY)


@functools.cache
def successes_needed(n: int, p: float, alpha: float) -> int:
    """The fewest successes of n that are evidence of 1 / alpha against a proportion of at most p; n + 1 if none are."""
    return bisect.bisect_left(range(n + 1), -math.log(alpha), key=lambda successes: log_e_value(successes, n, p))


def votes_needed(mode: str, alpha: float) -> int:
    """The smallest number of unanimous votes that certifies anything."""
    if mode == "fixed":
        return math.floor(math.log(alpha) / math.log(0.5)) + 1
    n = 1
    while anytime_lower_bound(n, n, alpha) <= 0.5:
        n += 1
    return n


def check(sigma: float, alpha: float, n: int, mode: str) -> None:
    """Refuse settings that cannot certify anything.

    Raises ValueError for sigma <= 0, alpha outside (0, 0.5), or an n at which even unanimous votes certify nothing.
    """
    if sigma <= 0:
        raise ValueError(f"certify.sigma must be > 0, got {sigma}")
    if not 0 < alpha < 0.5:
        raise ValueError(f"certify.alpha must be in (0, 0.5), got {alpha}")
    if n < (needed := votes_needed(mode, alpha)):
        raise ValueError(
            f"certify.n = {n} certifies nothing at alpha = {alpha} ({mode}): at least {needed} draws are needed"
        )


def wrong_at_most(n: int, alpha: float, confidence: float) -> int:
    """How many of n certificates, each wrong with probability at most alpha, are wrong at most, with this confidence.

    Votes of different questions are independent, so their number is at most binomial(n, alpha).
    """
    return int(binom.ppf(confidence, n, alpha))
