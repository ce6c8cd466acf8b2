"""Certificates: the bound covers, no radius exceeds the truth of a classifier that can be solved exactly."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, norm

import certify as certify_script
from safemed import smoothing
from safemed.evaluation import Exam
from safemed.smoothing import ABSTAIN, RADIUS_DIGITS, certify, lower_bound


@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.2])
def test_the_bound_is_the_exact_one_sided_binomial_one(alpha):
    for n in (1, 7, 50, 1000):
        for k in {0, 1, n // 3, n // 2, n - 1, n}:
            exact = binomtest(k, n, alternative="greater").proportion_ci(1 - alpha, method="exact").low
            assert lower_bound(k, n, alpha) == pytest.approx(exact, abs=1e-10)


@pytest.mark.parametrize("p", [0.3, 0.6, 0.9, 0.95])
def test_the_bound_covers_as_often_as_it_says(p):
    alpha, n, trials = 0.05, 80, 4000
    successes = np.random.default_rng(int(100 * p)).binomial(n, p, trials)
    missed = np.mean([lower_bound(int(k), n, alpha) > p for k in successes])
    assert missed <= alpha + 3 * (alpha * (1 - alpha) / trials) ** 0.5
    assert missed > 0  # it is a bound on a random thing, not the trivial one


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


def wrongly_certified(f: Linear, sigma: float, alpha: float, n: int) -> bool:
    """Whether a certificate of f claims more than the truth."""
    found = certify(f.votes(20, sigma), f.votes(n, sigma), sigma, alpha)
    if found.prediction == ABSTAIN:
        return False
    truth = f.distance() if found.prediction == "A" else -f.distance()
    return found.radius > truth


def test_no_radius_exceeds_the_true_distance_more_often_than_alpha():
    alpha, trials = 0.05, 2000
    failed = np.mean([wrongly_certified(Linear(seed), 0.25, alpha, 100) for seed in range(trials)])
    assert failed <= alpha + 3 * (alpha * (1 - alpha) / trials) ** 0.5
    assert np.mean([wrongly_certified(Linear(seed), 0.25, 1e-4, 100) for seed in range(500)]) == 0


def test_radii_approach_the_truth_with_many_draws():
    sigma, checked = 0.25, 0
    for seed in range(40):
        f = Linear(seed)
        if 0.3 * sigma < abs(f.distance()) < 2 * sigma:
            found = certify(f.votes(100, sigma), f.votes(20_000, sigma), sigma, 0.001)
            assert found.prediction == ("A" if f.distance() > 0 else "B")
            assert found.radius >= 0.85 * abs(f.distance())
            checked += 1
    assert checked >= 10


def test_drawing_once_for_both_selection_and_estimation_would_break_the_promise():
    """With two classes at 1/2 the truth is a radius of 0: independent draws keep alpha, re-used ones do not."""
    alpha, trials, n = 0.1, 4000, 101
    rng = np.random.default_rng(0)

    def votes() -> list[str]:
        k = rng.binomial(n, 0.5)
        return ["A"] * k + ["B"] * (n - k)

    def certified(selection: list[str], estimation: list[str]) -> bool:
        return certify(selection, estimation, 1.0, alpha).prediction != ABSTAIN

    apart = np.mean([certified(votes(), votes()) for _ in range(trials)])
    reused = np.mean([certified(same, same) for same in (votes() for _ in range(trials))])
    error = 3 * (alpha * (1 - alpha) / trials) ** 0.5
    assert apart <= alpha + error < reused


def test_split_votes_abstain_and_the_class_is_the_selections():
    assert certify(["A"] * 10, ["A"] * 50 + ["B"] * 50, 0.5, 0.01) == smoothing.Certificate(ABSTAIN, 0.0)
    assert certify(["A"] * 6 + ["B"] * 4, ["B"] * 100, 0.5, 0.01).prediction == ABSTAIN
    assert certify(["A", "B", "B"], ["B"] * 100, 0.5, 0.01).prediction == "B"
    assert certify(["?"] * 5, ["?"] * 100, 0.5, 0.01).prediction == "?"


def test_radii_are_rounded_down():
    for n in range(20, 400, 7):
        for wrong in (0, 1, 3):
            found = certify(["A"], ["A"] * (n - wrong) + ["B"] * wrong, 0.37, 0.001)
            exact = 0.37 * norm.ppf(lower_bound(n - wrong, n, 0.001))
            if found.prediction == ABSTAIN:
                assert exact <= 0
            else:
                assert exact - 10.0**-RADIUS_DIGITS < found.radius <= exact
                assert round(found.radius, RADIUS_DIGITS) == found.radius


@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.3, 0.49])
def test_too_few_draws_are_refused_with_the_number_that_would_do(alpha):
    def certifies(n: int) -> bool:
        return certify(["A"], ["A"] * n, 1.0, alpha).prediction != ABSTAIN

    enough = next(n for n in range(1, 100) if lower_bound(n, n, alpha) > 0.5)
    assert certifies(enough) and not (enough > 1 and certifies(enough - 1))
    smoothing.check(0.5, alpha, enough)
    if enough > 1:
        with pytest.raises(ValueError, match=rf"certify\.n.*{enough} draws"):
            smoothing.check(0.5, alpha, enough - 1)


@pytest.mark.parametrize(
    "sigma, alpha, name", [(0, 0.1, "sigma"), (-1, 0.1, "sigma"), (1, 0, "alpha"), (1, 0.7, "alpha")]
)
def test_impossible_settings_are_refused_by_name(sigma, alpha, name):
    with pytest.raises(ValueError, match=name):
        smoothing.check(sigma, alpha, 1000)


def noisy_images(exam: Exam, settings: dict, seed: int = 0) -> tuple[dict, torch.Tensor]:
    """A certificate's row, and every image that the vision tower saw for it, as patches in [0, 1] units."""
    seen = []

    def record(module, args, kwargs):
        pixel_values = args[0] if args else next(v for k, v in kwargs.items() if k != "grid_thw" and v.ndim == 2)
        seen.append(pixel_values.detach() * 0.5 + 0.5)

    handle = exam.vlm.visual.register_forward_pre_hook(record, with_kwargs=True)
    try:
        row = certify_script.certificate_row(exam, 1, SimpleNamespace(
            seed=seed, sigma=0.2, settings=settings, model="m", method="m", variant="instruct"
        ))  # fmt: skip
    finally:
        handle.remove()
    n = settings["n0"] + settings["n"]
    return row, torch.cat(seen).view(n, -1)


def test_every_draw_is_fresh_gaussian_noise_that_is_not_clipped(skilled, shown):
    exam, settings = Exam(skilled, shown, "instruct", 8), {"n0": 8, "n": 24, "alpha": 0.01, "batch_size": 7}
    row, images = noisy_images(exam, settings)
    assert len(torch.unique(images, dim=0)) == 32
    clean = exam.vlm.processor.image_processor([shown[1]["image"]], return_tensors="pt")["pixel_values"]
    noise = images - (clean.view(1, -1) * 0.5 + 0.5)
    assert noise.std().item() == pytest.approx(0.2, rel=0.02) and noise.mean().abs() < 0.005
    assert images.min() < 0 or images.max() > 1
    assert abs(np.corrcoef(noise[:8].flatten(), noise[8:16].flatten())[0, 1]) < 0.03
    again, same = noisy_images(exam, settings)
    assert torch.equal(images, same) and {**again, "seconds": 0} == {**row, "seconds": 0}
    assert not torch.equal(images, noisy_images(exam, settings, seed=1)[1])


def test_a_row_says_what_the_votes_say(skilled, shown):
    exam = Exam(skilled, shown, "instruct", 8)
    args = SimpleNamespace(
        seed=0, sigma=1e-6, settings={"n0": 4, "n": 40, "alpha": 0.01, "batch_size": 44}, model="m", method="m",
        variant="instruct",
    )  # fmt: skip
    for i in range(4):
        row = certify_script.certificate_row(exam, i, args)  # noise too small to matter: every vote is the right answer
        assert row["prediction"] == row["gold"] and row["certified"]
        assert row["radius"] <= 1e-6 * norm.ppf(0.01 ** (1 / 40))
