"""The AUROC, its interval and differences of two, with answers that depend on each other."""

import math

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from safemed.utils.ranking import FEWEST, auroc, auroc_difference, auroc_interval


def drawn(rng, images: int, each: int, alike: float, apart: float, share: float = 0.7) -> tuple:
    """Right answers and scores of the questions of images, alike within an image, and the images."""
    image, n = np.repeat(np.arange(images), each), images * each
    of_image = rng.normal(size=(2, images))[:, image] * alike**0.5
    hard, noise = of_image + rng.normal(size=(2, n)) * (1 - alike) ** 0.5
    right = hard < norm.ppf(share)
    return right, noise + apart * right, image


def test_the_chance_that_a_right_answer_is_surer_counts_ties_half():
    right, scores = [True, True, False, False], [0.9, 0.5, 0.5, 0.1]
    assert auroc(right, scores) == roc_auc_score(right, scores) == 3.5 / 4
    assert auroc(right, [0.5] * 4) == 0.5 and math.isnan(auroc([True] * 4, scores))


def test_an_interval_holds_the_true_value_about_as_often_as_it_says():
    rng, apart = np.random.default_rng(1), 1.0
    for images, each, alike in ((80, 1, 0.0), (30, 4, 0.8)):
        held = []
        for _ in range(150):
            low, high = auroc_interval(*drawn(rng, images, each, alike, apart))
            held.append(low <= norm.cdf(apart / 2**0.5) <= high)
        assert np.mean(held) > 0.91


def test_answers_that_repeat_each_other_tell_no_more_than_one():
    right, scores, image = drawn(np.random.default_rng(2), 40, 1, 0.0, 1.0)
    plain = auroc_interval(right, scores, image)
    again = [np.repeat(one, 5) for one in (right, scores, image)]
    assert auroc_interval(*again) == pytest.approx(plain, abs=0.02)
    narrower = auroc_interval(again[0], again[1], range(200))
    assert plain[0] < narrower[0] - 0.03 and narrower[1] + 0.03 < plain[1]


def test_no_interval_is_a_point_and_none_leaves_the_unit_interval():
    low, high = auroc_interval([True] * 20 + [False] * 3, [0.9] * 20 + [0.1] * 3, range(23))
    assert 0.4 < low < 0.95 and high == 1
    assert auroc_interval([True] * 3 + [False] * 20, [0.1] * 3 + [0.9] * 20, range(23)) == pytest.approx(
        (1 - high, 1 - low)
    )
    together = auroc_interval([True] * 20 + [False] * 3, [0.9] * 20 + [0.1] * 3, [*range(20), 20, 20, 20])
    assert together[0] < low  # three wrong answers about one image
    assert all(math.isnan(end) for end in auroc_interval([True] * 5, [0.5] * 5, range(5)))


def test_a_difference_is_of_the_same_answers():
    right, scores, image = drawn(np.random.default_rng(3), 60, 3, 0.5, 1.5)
    assert auroc_difference((right, scores), (right, 2 * scores), image) == (0, 0)  # the same ranks
    low, high = auroc_difference((right, scores), (right, np.zeros(len(right))), image)
    assert low < auroc(right, scores) - 0.5 < high and low > 0.1
    worse = auroc_difference((right, np.zeros(len(right))), (right, scores), image)
    assert worse == pytest.approx((-high, -low))


def test_a_difference_of_few_wrong_answers_has_no_interval():
    for wrong in (FEWEST - 1, FEWEST):
        right = np.arange(60) >= wrong
        scores = np.random.default_rng(4).normal(size=60)
        found = auroc_difference((right, scores), (right, -scores), range(60))
        assert math.isnan(found[0]) == (wrong < FEWEST)
    assert math.isnan(auroc_difference((right, scores), (right, -scores), [0] * FEWEST + list(range(1, 51)))[0])
