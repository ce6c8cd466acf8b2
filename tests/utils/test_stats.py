"""Intervals cover what they claim, clusters widen them, and nothing is ever rounded up."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import binomtest

from safemed.utils.stats import (
    clustered_wilson,
    design_effect,
    floor_to,
    gap_by_chance,
    paired_difference,
    sign_flip,
    wilson,
)


@pytest.mark.parametrize("right, n", [(0, 1), (0, 40), (3, 7), (95, 100), (40, 40), (123, 1000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_one_question_an_image_is_scipys_wilson(right, n, confidence):
    expected = binomtest(right, n).proportion_ci(confidence, method="wilson")
    answers = [True] * right + [False] * (n - right)
    assert wilson(right, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert clustered_wilson(answers, range(n), confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_interval_holds_the_estimate_and_stays_in_the_unit_interval():
    for n in (1, 2, 5, 33.3):
        for successes in (0, n / 3, n):
            low, high = wilson(successes, n)
            assert 0 <= low <= successes / n <= high <= 1


@pytest.mark.parametrize("size", [2, 4])
def test_perfect_agreement_within_images_divides_n_by_the_cluster_size(size):
    per_image = np.arange(200) % 5 != 0  # 200 images, 80 % right
    answers, images = np.repeat(per_image, size), np.repeat(np.arange(200), size)
    assert design_effect(answers, images) == pytest.approx(size, rel=0.01)
    clustered, plain = clustered_wilson(answers, images), wilson(answers.sum(), answers.size)
    assert clustered[0] < plain[0] and plain[1] < clustered[1]
    assert clustered == pytest.approx(wilson(per_image.sum(), 200), abs=1e-3)  # four equal answers tell what one does


def test_design_effect_never_narrows_and_is_the_worst_case_where_nothing_can_be_estimated():
    opposed = [True, False] * 50  # within an image the answers disagree always: variance between images is zero
    assert design_effect(opposed, np.repeat(np.arange(50), 2)) == 1.0
    assert design_effect([True, True, False, False], list("aabb")) == pytest.approx(3.0)  # by hand: 2/16 * 2 / (1/12)
    assert design_effect([True] * 6, list("aabbbb")) == pytest.approx((4 + 16) / 6)
    assert design_effect([True, False, True], list("aaa")) == 3.0


def test_the_interval_of_values_between_0_and_1_is_no_narrower_than_theirs():
    rng = np.random.default_rng(0)
    images = np.repeat(np.arange(60), 3)
    for values in (rng.random(180), rng.random(60)[images], rng.random(180) * (rng.random(60) < 0.3)[images]):
        low, high = clustered_wilson(values, images)
        by_image = np.bincount(images, values) / 3
        half = 1.96 * by_image.std(ddof=1) / 60**0.5
        assert low < values.mean() < high and high - low > 2 * half * 0.97


def test_answers_that_count_half_and_stand_there_twice_are_as_those_that_count_once():
    rng = np.random.default_rng(0)
    right, images = rng.random(120) < np.repeat(rng.beta(0.8, 0.4, 40), 3), np.repeat(np.arange(40), 3)
    twice = np.arange(120) < 60
    doubled = [np.concatenate([what, what[twice]]) for what in (right, images, np.where(twice, 0.5, 1))]
    other = np.concatenate([right[::-1], right[::-1][twice]])
    once = clustered_wilson(right, images)
    assert clustered_wilson(*doubled[:2], weights=doubled[2]) == pytest.approx(once, abs=2e-3)
    assert clustered_wilson(*doubled[:2]) != pytest.approx(once, abs=2e-3)
    assert design_effect(right, np.arange(120), np.where(twice, 3, 1)) >= 1.25  # the mean square of 0.5 and 1.5
    assert design_effect(right, images, [7] * 120) == pytest.approx(design_effect(right, images))
    paired = paired_difference(doubled[0], other, doubled[1], weights=doubled[2])
    assert paired == pytest.approx(paired_difference(right, right[::-1], images))


def test_coverage_of_clustered_answers():
    """300 studies of 80 images with 4 correlated questions: the clustered interval covers, the plain one does not."""
    rng = np.random.default_rng(0)
    truth, covered, plainly = 0.8, 0, 0
    images = np.repeat(np.arange(80), 4)
    for _ in range(300):
        answers = rng.random(320) < np.repeat(rng.beta(1.6, 0.4, 80), 4)
        low, high = clustered_wilson(answers, images)
        covered += low <= truth <= high
        low, high = wilson(answers.sum(), 320)
        plainly += low <= truth <= high
    assert covered / 300 >= 0.92
    assert plainly / 300 <= 0.88


def test_refuses_what_has_no_interval():
    for successes, n in ((0, 0), (0, -1), (3, 2), (-1, 2), (0, float("nan"))):
        with pytest.raises(ValueError):
            wilson(successes, n)
    with pytest.raises(ValueError, match="confidence"):
        wilson(1, 2, confidence=1.0)
    with pytest.raises(ValueError, match="no answers"):
        clustered_wilson([], [])
    with pytest.raises(ValueError, match="2 answers but 1"):
        design_effect([True, False], ["a"])


def test_floor_never_exceeds_and_is_idempotent():
    rng = np.random.default_rng(0)
    for x in [*rng.uniform(-3, 3, 500), 0.29, 0.57, 1.1, 0.99999, -0.001]:
        for digits in (0, 2, 4):
            floored = floor_to(x, digits)
            assert x - 10.0**-digits < floored <= x
            assert floor_to(floored, digits) == floored
    assert floor_to(0.29, 2) == 0.29 and floor_to(0.9999, 3) == 0.999 and floor_to(-0.001, 2) == -0.01
    with pytest.raises(ValueError):
        floor_to(float("nan"), 2)


def test_flipped_signs_of_one_question_an_image_are_mcnemars_exact_test():
    first, second = [True] * 8 + [False] * 2, [False] * 6 + [True] * 4
    assert sign_flip(first, second, range(10)) == pytest.approx(binomtest(6, 8).pvalue)
    assert sign_flip(first, first, range(10)) == 1.0


def test_flipped_signs_are_those_of_all_flips_of_whole_images():
    rng = np.random.default_rng(0)
    first, second, images = rng.random(30) < 0.8, rng.random(30) < 0.5, rng.integers(0, 9, 30)
    gained = np.bincount(images, first.astype(int) - second)
    flips = np.array(list(product([-1, 1], repeat=len(gained))))
    assert sign_flip(first, second, images) == pytest.approx(np.mean(abs(flips @ gained) >= abs(gained.sum())))


def test_alike_models_whose_answers_to_an_image_agree_are_told_apart_no_more_often_than_p_says():
    """Four questions an image, answered alike: as independent questions, p would be small far too often."""
    rng, found, naive = np.random.default_rng(0), [], []
    for _ in range(300):
        first, second = (np.repeat(rng.random(40) < 0.6, 4) for _ in range(2))
        found.append(sign_flip(first, second, np.repeat(np.arange(40), 4)))
        naive.append(sign_flip(first, second, range(160)))
    assert np.mean(np.array(found) <= 0.05) <= 0.08 and np.mean(np.array(naive) <= 0.05) > 0.2


def test_the_paired_bootstrap_covers_the_true_difference_of_clustered_answers():
    rng, covered = np.random.default_rng(0), 0
    for seed in range(100):
        images = rng.random((40, 1)) < 0.5  # half of the images are hard for both models
        first = rng.random((40, 4)) < np.where(images, 0.9, 0.5)
        second = rng.random((40, 4)) < np.where(images, 0.8, 0.3)
        low, high = paired_difference(first.ravel(), second.ravel(), np.repeat(np.arange(40), 4), seed=seed)
        covered += low <= 0.15 <= high
    assert covered >= 88
    assert paired_difference([True] * 4, [False] * 4, [0, 0, 1, 1]) == (1.0, 1.0)


def test_alike_groups_of_dependent_answers_have_a_p_that_is_near_uniform():
    """Images of four equal answers: by question, p would be small far too often."""
    rng, found, naive = np.random.default_rng(0), [], []
    for study in range(300):
        right = np.repeat(rng.random(60) < 0.6, 4)
        groups = np.repeat(rng.permutation(np.repeat(["a", "b", "c"], 20)), 4)
        found.append(gap_by_chance(right, groups, np.repeat(np.arange(60), 4), draws=199, seed=study)[1])
        naive.append(gap_by_chance(right, groups, np.arange(240), draws=199, seed=study)[1])
    for level in (0.05, 0.25, 0.5):
        assert level - 0.12 < np.mean(np.array(found) <= level) < level + 0.06, level
    assert np.mean(np.array(naive) <= 0.05) > 0.2


def test_alike_groups_are_not_told_apart_by_how_many_questions_their_images_have():
    """Ten images of one question against forty of three: the small group's share varies more than permuted ones."""
    rng, sizes, found = np.random.default_rng(0), np.repeat([1, 3], [10, 40]), []
    images, groups = np.repeat(np.arange(50), sizes), np.repeat(["few", "many"], [10, 120])
    for study in range(300):
        found.append(gap_by_chance(rng.random(130) < 0.6, groups, images, draws=199, seed=study)[1])
    for level in (0.05, 0.25, 0.5):
        assert level - 0.08 < np.mean(np.array(found) <= level) < level + 0.06, level


def test_a_gap_of_large_groups_is_found_beside_a_group_of_one():
    right = np.concatenate([np.arange(100) < 90, np.arange(100) < 50, [True]])
    groups = [*"a" * 100, *"b" * 100, "c"]
    gap, p = gap_by_chance(right, groups, range(201), draws=999)
    assert gap == 0.5 and p == 1 / 1000
    assert gap_by_chance([*[True, False] * 100, True], groups, range(201), draws=999)[1] > 0.5


def test_a_gap_between_groups_is_found_and_its_p_is_that_of_an_exact_case():
    right, groups = np.array([1, 1, 1, 0, 0, 0], bool), list("aaabbb")
    gap, p = gap_by_chance(right, groups, range(6), draws=4999)
    assert gap == 1 and p == pytest.approx(2 / 20, abs=0.02)  # of 20 divisions, this and its mirror
    assert (
        gap_by_chance(right, groups, range(6)) == (gap, p) and gap_by_chance(right, list("ababab"), range(6))[1] > 0.5
    )
    apart = np.arange(80) < 40
    assert gap_by_chance(apart, np.where(apart, "a", "b"), range(80)) == (1, 1 / 5000)


def test_a_gap_of_one_group_or_with_an_image_in_two_is_refused():
    with pytest.raises(ValueError, match="at least two groups"):
        gap_by_chance([True, False], ["a", "a"], [0, 1])
    with pytest.raises(ValueError, match="a cluster is in two groups"):
        gap_by_chance([True, False], ["a", "b"], [0, 0])
