"""Corruptions reach the likeness asked for, and marks stay where they belong."""

import numpy as np
import pytest

from safemed.stress import corruptions, marks
from support.phantom_images import BOX, FIRST, PLACES, SIDE, inside, is_grey, phantom

RANDOM = ("noise", "motion", "ring", "metal")  # kinds that draw something


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    return phantom("X-Ray", "hand")[0]


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Which pixels differ, bool [H, W]."""
    assert after.shape == before.shape and after.dtype == np.uint8
    return (before != after).any(2)


def test_ssim_is_one_for_equal_images_and_falls_with_noise(clean):
    small = clean[:32, :32]
    noise = np.random.default_rng(0).standard_normal(small.shape)
    noisy = [np.clip(small + sigma * noise, 0, 255).astype(np.uint8) for sigma in (0, 10, 40)]
    values = [corruptions.ssim(small, image) for image in noisy]
    assert values[0] == pytest.approx(1) and values[0] > values[1] + 0.1 > values[2] + 0.2


@pytest.mark.parametrize("kind", corruptions.CORRUPTIONS)
@pytest.mark.parametrize(("modality", "anatomy"), FIRST)
def test_corruptions_reach_the_ssim_of_their_severity(modality, anatomy, kind):
    image, _ = phantom(modality, anatomy)
    made = [corruptions.corrupt(image, kind, severity, "a") for severity in corruptions.SEVERITIES]
    tolerance = 0.05 if kind == "jpeg" else 0.01  # JPEG's quality is a whole number
    for (corrupted, reached), target in zip(made, corruptions.SEVERITIES.values(), strict=True):
        assert changed(image, corrupted).any() and is_grey(corrupted) == is_grey(image)
        assert reached == pytest.approx(corruptions.ssim(image, corrupted), abs=1e-6)
        strongest = (corrupted == made[-1][0]).all() and reached > target
        assert strongest or reached == pytest.approx(target, abs=tolerance)
    values = [reached for _, reached in made]
    assert values[:4] == sorted(set(values[:4]), reverse=True) and values[4] <= values[3]


@pytest.mark.parametrize("kind", corruptions.CORRUPTIONS)
def test_equal_words_give_equal_pixels_and_others_others_where_the_kind_is_random(clean, kind):
    first, again, other = (corruptions.corrupt(clean, kind, 3, words)[0] for words in ("a", "a", "b"))
    assert (first == again).all() and (first == other).all() == (kind not in RANDOM)


@pytest.mark.parametrize("kind", corruptions.CORRUPTIONS)
@pytest.mark.parametrize("shape", [(32, 32), (40, 70), (150, 100)])
def test_corruptions_take_any_shape_and_leave_their_input_alone(kind, shape):
    image, _ = phantom("Dermoscopy", "palm", side=max(shape))
    image = image[: shape[0], : shape[1]]
    before = image.copy()
    corrupted, reached = corruptions.corrupt(image, kind, 2, "a")
    assert changed(image, corrupted).any() and reached < 0.9 and (image == before).all()


def test_unknown_kinds_and_severities_are_refused(clean):
    for kind, severity in [("fog", 1), ("blur", 6)]:
        with pytest.raises(KeyError):
            corruptions.corrupt(clean, kind, severity, "a")
    with pytest.raises(KeyError):
        marks.mark(clean, "star", BOX)


def test_rings_are_concentric_and_streaks_are_not():
    """A quarter turn about the centre keeps rings in place."""
    flat = np.full((65, 65, 3), 128, np.uint8)
    likeness = {}
    for kind in ("ring", "metal"):
        pattern = corruptions.corrupt(flat, kind, 4, "a")[0][..., 0] - 128.0
        likeness[kind] = np.corrcoef(pattern.ravel(), np.rot90(pattern).ravel())[0, 1]
    assert likeness["ring"] > 0.95 and likeness["metal"] < 0.5


def test_metal_shows_a_bright_implant(clean):
    corrupted, _ = corruptions.corrupt(clean // 2, "metal", 2, "a")
    assert (corrupted == 255).all(2).sum() >= 12 and clean.max() // 2 < 128


@pytest.mark.parametrize("side", [SIDE, 200])
@pytest.mark.parametrize(("modality", "anatomy"), FIRST)
def test_a_box_is_drawn_round_what_it_shows(modality, anatomy, side):
    image, truth = phantom(modality, anatomy, size="small", side=side)
    drawn = changed(image, marks.mark(image, "box", truth.box))
    outline = inside(truth.box, image.shape, side // 64) & ~inside(truth.box, image.shape)
    assert (drawn & ~outline).sum() == 0 and drawn.sum() >= 2 * (truth.box[2] - truth.box[0])
    if side == SIDE:
        assert (drawn == outline).all()


@pytest.mark.parametrize("kind", ["box", "arrow"])
@pytest.mark.parametrize("box", [*PLACES, (0, 0, SIDE, SIDE)])
def test_marks_are_seen_wherever_the_box_lies(clean, box, kind):
    drawn = changed(clean, marks.mark(clean, kind, box))
    assert drawn.sum() >= 8 and (marks.mark(clean, kind, box)[drawn] == marks.YELLOW).all()


@pytest.mark.parametrize("side", [32, SIDE, 200])
@pytest.mark.parametrize("direction", range(4))
def test_an_arrow_comes_from_outside_and_touches_the_edge(side, direction):
    x, y, lesion = side * 2 // 3, side // 2, side // 6
    box = (x, y, x + lesion, y + lesion)
    image = np.rot90(np.zeros((side, side, 3), np.uint8), direction)
    for _ in range(direction):
        box = (box[1], side - box[2], box[3], side - box[0])  # a quarter turn, as rot90 makes it
    drawn = changed(image, marks.mark(image, "arrow", box))
    assert not drawn[inside(box, image.shape)].any() and drawn[inside(box, image.shape, 1)].sum() == 1
    assert not drawn[~inside(box, image.shape, side // 4 + 1)].any() and drawn.sum() > side // 8


@pytest.mark.parametrize("box", PLACES)
@pytest.mark.parametrize("words", ["normal", "calcifications", "Diagnosis: calcifications"])
def test_a_label_changes_nothing_but_a_strip_away_from_the_box(clean, words, box):
    labelled = marks.mark(clean, "label", box, words)
    rows, columns = (np.flatnonzero(changed(clean, labelled).any(axis)) for axis in (1, 0))
    strip = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    away = 0 if sum(box[1::2]) > SIDE else SIDE
    assert away in strip[1::2] and strip[3] - strip[1] <= SIDE // 3
    if box != PLACES[-1]:  # which leaves no room
        assert not (inside(strip, clean.shape) & inside(box, clean.shape)).any()
    text = (labelled.astype(int) - marks.YELLOW)[inside(strip, clean.shape)]
    assert (np.abs(text).max(1) < 128).sum() > 5 * len(words)  # bright strokes, on black
    assert (labelled[inside(strip, clean.shape)].max(1) == 0).mean() > 0.3


def test_a_label_says_its_words_at_any_width():
    for side in (SIDE, 200):
        black = np.zeros((side, side, 3), np.uint8)
        first, other = (marks.mark(black, "label", (0, 0, 9, 9), words) for words in ("a nodule", "a cyst"))
        assert changed(first, other).any()
        inked = np.flatnonzero(changed(black, first).any(0))
        assert 0.3 * side < inked[-1] - inked[0] + 1 < side  # the text grows with the side, and is not cut
    with pytest.raises(ValueError, match="words"):
        marks.mark(black, "label", BOX, " ")


@pytest.mark.parametrize("box", [(-1, 0, 5, 5), (5, 5, 5, 9), (60, 60, 65, 64)])
def test_boxes_that_are_empty_or_leave_the_image_are_refused(clean, box):
    for use in (
        lambda: marks.mark(clean, "box", box),
        lambda: marks.wrong_place(box, clean.shape, "a"),
    ):
        with pytest.raises(ValueError, match="box"):
            use()


@pytest.mark.parametrize("box", PLACES[:4])
def test_the_wrong_place_never_overlaps_where_it_can(box):
    found = {marks.wrong_place(box, (SIDE, SIDE, 3), f"{i}") for i in range(200)}
    right = inside(box, (SIDE, SIDE))
    assert len(found) > 100  # it is drawn from all the image
    for place in found:
        wrong = inside(place, (SIDE, SIDE))
        assert wrong.sum() == right.sum() and not (wrong & right).any()
        assert (place[2] - place[0], place[3] - place[1]) == (box[2] - box[0], box[3] - box[1])


def test_a_large_box_is_moved_to_where_it_overlaps_least():
    assert {marks.wrong_place((0, 0, 60, 60), (64, 64), f"{i}") for i in range(9)} == {(4, 4, 64, 64)}
    assert marks.wrong_place((0, 0, 64, 63), (64, 64), "a") == (0, 1, 64, 64)
    with pytest.raises(ValueError, match="no other place"):
        marks.wrong_place((0, 0, 64, 64), (64, 64), "a")


def test_places_follow_from_the_words():
    for place in (
        lambda words: marks.some_place((48, 64, 3), words),
        lambda words: marks.wrong_place(BOX, (48, 64), words),
    ):
        assert place("a") == place("a") and len({place(f"{i}") for i in range(50)}) > 30
    for i in range(50):
        x0, y0, x1, y1 = marks.some_place((48, 64, 3), f"{i}")
        assert (x1 - x0, y1 - y0) == (16, 12) and inside((x0, y0, x1, y1), (48, 64)).sum() == 16 * 12
