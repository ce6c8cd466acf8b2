"""Certificates: the bounds cover at any time of stopping, no radius exceeds the truth of a classifier known exactly."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import binom, binomtest, norm

from safemed.certificates import smoothing
from safemed.certificates.smoothing import (
    ABSTAIN,
    RADIUS_DIGITS,
    Procedure,
    Votes,
    anytime_lower_bound,
    log_e_value,
    lower_bound,
    votes_needed,
    wrong_at_most,
)

FIXED = Procedure(sigma=0.25, n0=20, n=100, alpha=0.05, mode="fixed")
SEQUENTIAL = Procedure(sigma=0.25, n0=20, n=2000, alpha=0.05, mode="sequential", radii=(0.0, 0.1, 0.25, 0.5))


def asked(procedure: Procedure, draw, coin: float = 1.0) -> Votes:
    """Votes drawn by `draw`, a function from a number to so many classes, until no more are wanted."""
    votes = Votes(procedure, coin)
    while wanted := votes.wanted():
        votes.add(draw(wanted))
    return votes


def unlikely(alpha: float, trials: int) -> float:
    """The share of failures that a procedure of level alpha exceeds once in a thousand times."""
    return binom.ppf(0.999, trials, alpha) / trials


@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.2])
def test_the_fixed_bound_is_the_exact_one_sided_binomial_one(alpha):
    """A two-sided bound, which puts alpha / 2 on this side, is lower and fails here."""
    for n in (1, 7, 50, 1000):
        for k in {0, 1, n // 3, n // 2, n - 1, n}:
            exact = binomtest(k, n, alternative="greater").proportion_ci(1 - alpha, method="exact").low
            assert lower_bound(k, n, alpha) == pytest.approx(exact, abs=1e-10)
            if k:
                assert lower_bound(k, n, alpha) > 1.0001 * lower_bound(k, n, alpha / 2)


@pytest.mark.parametrize("p", [0.3, 0.6, 0.9, 0.95])
def test_the_fixed_bound_covers_as_often_as_it_says_and_the_randomised_one_exactly(p):
    alpha, n, trials = 0.05, 80, 4000
    rng = np.random.default_rng(int(100 * p))
    successes = rng.binomial(n, p, trials)
    missed = np.mean([lower_bound(int(k), n, alpha) > p for k in successes])
    assert 0 < missed <= unlikely(alpha, trials)
    drawn = list(zip(successes[:1000], rng.random(1000), strict=True))
    randomised = np.mean([lower_bound(int(k), n, alpha, coin) > p for k, coin in drawn])
    assert alpha - 0.025 <= randomised <= unlikely(alpha, 1000)  # exact but for coins below 2 alpha
    assert all(lower_bound(k, n, alpha, 0.5) > lower_bound(k, n, alpha) for k in range(1, n))


@pytest.mark.parametrize("p", [0.5, 0.84, 0.98])
def test_the_sequential_bound_covers_under_adversarial_stopping(p):
    """Somebody looks after every draw and stops as soon as the bound is above the truth: that happens with probability
    alpha at most. The same peeking at the fixed bound fails far more often.
    """
    alpha, n, trials = 0.05, 600, 2000
    draws = np.random.default_rng(int(100 * p)).random((trials, n)) < p
    successes, totals = draws.cumsum(1), np.arange(1, n + 1)
    refuted = {}  # by number of draws: the fewest successes at which the bound exceeds the truth
    for m in totals:
        refuted[m] = smoothing.successes_needed(int(m), p, alpha)
    limits = np.array([refuted[m] for m in totals])
    missed = (successes >= limits).any(1).mean()
    assert 0 < missed <= unlikely(alpha, trials)
    peeked = np.array([next((k for k in range(m + 1) if lower_bound(k, m, alpha) > p), m + 1) for m in totals[::5]])
    assert (successes[:, ::5] >= peeked).any(1).mean() > 2 * alpha


def test_the_evidence_is_worth_its_price_under_any_proportion_up_to_the_one_tested():
    """The expectation of the e-value after n draws, summed exactly, is 1 at p and below 1 for smaller proportions."""
    for p in (0.5, 0.84, 0.99):
        for n in (1, 10, 60):
            e = np.exp([log_e_value(k, n, p) for k in range(n + 1)])
            assert e @ binom.pmf(range(n + 1), n, p) == pytest.approx(1, rel=1e-9)
            assert e @ binom.pmf(range(n + 1), n, p - 0.1) < 1


def test_the_sequential_bound_is_the_smallest_proportion_that_is_not_refuted():
    """The evidence falls with p up to the observed share, so that the bound is where it crosses 1 / alpha."""
    for n in (5, 40, 300, 5000):
        for k in {1, n // 2, int(0.9 * n), n - 1, n}:
            bound = anytime_lower_bound(k, n, 0.01)
            evidence = [log_e_value(k, n, p) for p in np.linspace(1e-4, min(k / n, 0.9999), 300)]
            assert all(a >= b - 1e-9 for a, b in pairwise(evidence))
            assert bound <= lower_bound(k, n, 0.01)  # nothing is free
            if bound:
                assert log_e_value(k, n, bound) == pytest.approx(-math.log(0.01), abs=1e-6)


class Linear:
    """f(x) = "A" where w.x + b > 0, else "B": under Gaussian noise its truth is known exactly."""

    def __init__(self, seed: int, dimensions: int = 12):
        self.rng = np.random.default_rng(seed)
        self.w, self.b = self.rng.standard_normal(dimensions), self.rng.standard_normal() * 0.2
        self.x = self.rng.standard_normal(dimensions) * 0.1

    def distance(self) -> float:
        """The signed distance of x from the plane on which f, and g with it, changes."""
        return (self.w @ self.x + self.b) / np.linalg.norm(self.w)

    def votes(self, n: int, sigma: float) -> list[str]:
        """Classes at n fresh noisy points."""
        points = self.x + sigma * self.rng.standard_normal((n, len(self.x)))
        return np.where(points @ self.w + self.b > 0, "A", "B").tolist()


def overclaims(f: Linear, procedure: Procedure) -> bool:
    """Whether a certificate of f claims more than the truth."""
    votes = asked(procedure, lambda n: f.votes(n, procedure.sigma), coin=f.rng.random())
    found = votes.certificate()
    truth = f.distance() if found.prediction == "A" else -f.distance()
    return found.prediction != ABSTAIN and found.radius > truth


@pytest.mark.parametrize("procedure", [FIXED, SEQUENTIAL], ids=lambda procedure: procedure.mode)
@pytest.mark.parametrize("randomised", [False, True])
def test_no_radius_exceeds_the_true_distance_more_often_than_alpha(procedure, randomised):
    own = Procedure(**{**vars(procedure), "randomised": randomised, "n": min(procedure.n, 300)})
    failed = np.mean([overclaims(Linear(seed), own) for seed in range(500)])
    assert failed <= unlikely(own.alpha, 500)
    strict = Procedure(**{**vars(own), "alpha": 1e-4})
    assert not any(overclaims(Linear(seed), strict) for seed in range(200))


@pytest.mark.parametrize("mode", ("sequential", "fixed"))
def test_radii_approach_the_truth_with_many_draws(mode):
    """A sequential certificate is asked for nine tenths of the truth, and draws until it has them."""
    sigma, reached = 0.25, []
    for seed in range(40):
        f = Linear(seed)
        if 0.5 * sigma < abs(f.distance()) < 2 * sigma:
            procedure = Procedure(sigma, 100, 40_000, 1e-6, mode, (0.0, 0.9 * abs(f.distance())))
            found = asked(procedure, lambda n, f=f: f.votes(n, sigma)).certificate()
            assert found.prediction == ("A" if f.distance() > 0 else "B")
            reached.append(found.radius / abs(f.distance()))
    assert len(reached) >= 10 and np.median(reached) >= 0.9 and max(reached) <= 1


def test_selecting_and_estimating_from_the_same_draws_would_break_the_promise():
    """With two classes at 1/2 the truth is a radius of 0: independent draws keep alpha, re-used ones do not."""
    alpha, trials, n = 0.1, 3000, 101
    rng = np.random.default_rng(0)
    procedure = Procedure(1.0, n, n, alpha, "fixed")

    def certified(reuse: bool) -> bool:
        draws = np.where(rng.random(2 * n) < 0.5, "A", "B").tolist()
        votes = Votes(procedure)
        votes.add(draws[:n] + (draws[:n] if reuse else draws[n:]))
        return votes.certificate().prediction != ABSTAIN

    apart, reused = (np.mean([certified(reuse) for _ in range(trials)]) for reuse in (False, True))
    assert apart <= unlikely(alpha, trials) < reused


def test_one_noise_for_all_draws_would_break_the_promise():
    """A draw counted many times is one draw: what it says would be certified nearly always."""
    f, sigma = Linear(3), 2.0  # noise much larger than the distance: about one vote in two is "B"
    once = f.votes(1, sigma)
    repeated = asked(FIXED, lambda n: once * n).certificate()
    fresh = asked(Procedure(sigma, 20, 100, 0.05, "fixed"), lambda n: f.votes(n, sigma)).certificate()
    assert repeated.radius > abs(f.distance()) and fresh.prediction == ABSTAIN


def test_what_is_decided_does_not_depend_on_the_portions_that_votes_come_in():
    f = Linear(1)
    stream = f.votes(SEQUENTIAL.n0 + SEQUENTIAL.n, 0.25)

    def certified(most: int) -> Votes:
        votes, given = Votes(SEQUENTIAL), 0
        while wanted := votes.wanted():
            votes.add(stream[given : given + min(wanted, most)])
            given += min(wanted, most)
        return votes

    whole = certified(10_000)
    for most in (1, 7, 33):
        part = certified(most)
        assert (part.certificate(), part.evidence, part.drawn) == (whole.certificate(), whole.evidence, whole.drawn)
    with pytest.raises(ValueError, match="wanted"):
        Votes(SEQUENTIAL).add(stream)
    with pytest.raises(ValueError, match="more votes"):
        Votes(SEQUENTIAL).certificate()


def test_a_sequential_certificate_stops_when_its_radii_are_decided_or_out_of_reach():
    sure = asked(SEQUENTIAL, lambda n: ["A"] * n)
    assert sure.stopped == "decided" and sure.certificate().radius >= 0.5 and sure.n < 600
    near = asked(Procedure(0.25, 20, 2000, 0.05, radii=(0.0,)), lambda n: ["A"] * n)
    assert near.stopped == "decided" and near.n <= 16
    rng = np.random.default_rng(0)
    split = asked(SEQUENTIAL, lambda n: np.where(rng.random(n) < 0.5, "A", "B").tolist())
    assert split.stopped == "futile" and split.certificate() == smoothing.Certificate(ABSTAIN, 0.0) and split.n < 1500
    beyond = asked(Procedure(0.25, 20, 60, 0.05, radii=(5.0,)), lambda n: ["A"] * n)
    assert beyond.n <= 16 and beyond.certificate().radius > 0  # no number of votes would reach 5: not even asked for


def test_giving_up_loses_few_certificates():
    """Against drawing to the end: at most a few per cent of the radii that would be certified are given up."""
    rng, kept, sigma = np.random.default_rng(1), [], 0.25
    procedure = Procedure(sigma, 1, 2000, 0.001, radii=(0.25,))
    for _ in range(300):
        p = norm.cdf(0.25 / sigma) + rng.uniform(0.0, 0.06)
        stream = np.where(rng.random(2001) < p, "A", "B")
        stream[0] = "A"
        best = max(
            anytime_lower_bound(int((stream[1 : n + 1] == "A").sum()), n, 0.001) for n in (250, 500, 1000, 1500, 2000)
        )
        if sigma * norm.ppf(best) >= 0.25:
            given = iter(stream)
            votes = asked(procedure, lambda n, given=given: [next(given) for _ in range(n)])
            kept.append(votes.certificate().radius >= 0.25)
    assert len(kept) > 100 and np.mean(kept) >= 0.95


def test_split_votes_abstain_and_the_class_is_the_selections():
    def certified(selection: list[str], estimation: list[str]) -> smoothing.Certificate:
        votes = Votes(Procedure(0.5, len(selection), len(estimation), 0.01, "fixed"))
        votes.add(selection + estimation)
        return votes.certificate()

    assert certified(["A"] * 10, ["A"] * 50 + ["B"] * 50) == smoothing.Certificate(ABSTAIN, 0.0)
    assert certified(["A"] * 6 + ["B"] * 4, ["B"] * 100).prediction == ABSTAIN
    assert certified(["A", "B", "B"], ["B"] * 100).prediction == "B"
    assert certified(["?"] * 5, ["?"] * 100).prediction == "?"


def test_radii_are_rounded_down():
    for n in range(20, 400, 7):
        for wrong in (0, 1, 3):
            votes = Votes(Procedure(0.37, 1, n, 0.001, "fixed"))
            votes.add(["A"] * (1 + n - wrong) + ["B"] * wrong)
            exact, found = 0.37 * norm.ppf(lower_bound(n - wrong, n, 0.001)), votes.certificate()
            if found.prediction == ABSTAIN:
                assert exact <= 0
            else:
                assert exact - 10.0**-RADIUS_DIGITS < found.radius <= exact
                assert round(found.radius, RADIUS_DIGITS) == found.radius


@pytest.mark.parametrize("mode", ("sequential", "fixed"))
@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.3, 0.49])
def test_too_few_draws_are_refused_with_the_number_that_would_do(alpha, mode):
    def certifies(n: int) -> bool:
        return asked(Procedure(1.0, 1, n, alpha, mode), lambda m: ["A"] * m).certificate().prediction != ABSTAIN

    enough = votes_needed(mode, alpha)
    assert certifies(enough) and not (enough > 1 and certifies(enough - 1))
    smoothing.check(0.5, alpha, enough, mode)
    if enough > 1:
        with pytest.raises(ValueError, match=rf"certify\.n.*{enough} draws"):
            smoothing.check(0.5, alpha, enough - 1, mode)


@pytest.mark.parametrize(
    "sigma, alpha, name", [(0, 0.1, "sigma"), (-1, 0.1, "sigma"), (1, 0, "alpha"), (1, 0.5, "alpha")]
)
def test_impossible_settings_are_refused_by_name(sigma, alpha, name):
    with pytest.raises(ValueError, match=name):
        smoothing.check(sigma, alpha, 1000, "sequential")


def test_a_whole_table_is_wrong_at_most_so_often():
    assert wrong_at_most(500, 0.001, 0.999) == binom.ppf(0.999, 500, 0.001)
    trials = np.random.default_rng(0).binomial(500, 0.001, 20_000)
    assert (trials > wrong_at_most(500, 0.001, 0.999)).mean() <= unlikely(0.001, 20_000)
