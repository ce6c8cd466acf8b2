"""What is erased is gone, and nothing else is touched."""

import numpy as np
import pytest

from safemed.data.phantoms import lesions
from safemed.stress import erasure
from support.phantom_images import ANATOMIES, BOX, PLACES, SIDE, inside, is_grey, phantom

MARGIN = round((lesions.HALO + 0.04) * SIDE)  # the halo and its soft edge
LESION = {"question_type": "Lesion Grading", "box": [20, 30, 32, 40]}


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    return phantom("X-Ray", "hand")[0]


@pytest.mark.parametrize("finding", lesions.FINDINGS[1:])
@pytest.mark.parametrize(("modality", "anatomy"), ANATOMIES)
def test_an_erased_lesion_is_gone(modality, anatomy, finding):
    image, truth = phantom(modality, anatomy, finding)
    box = erasure.grown(truth.box, MARGIN, image.shape)
    erased, grown, scrambled = erasure.erase(image, box), inside(box, image.shape), image.copy()
    scrambled[grown] = np.random.default_rng(1).integers(0, 256, (grown.sum(), 3))
    assert (erased == erasure.erase(scrambled, box)).all()
    assert (erased == image)[~grown].all() and is_grey(erased) == is_grey(image)
    healthy = phantom(modality, anatomy, "normal")[0].astype(float)
    left, there = (np.abs(shown - healthy)[inside(truth.box, image.shape)].mean() for shown in (erased, image))
    assert left < there


@pytest.mark.parametrize("box", PLACES)
def test_the_fill_continues_a_slope_and_keeps_within_the_tones_around(box):
    ramp = np.repeat(np.tile(np.arange(SIDE, dtype=np.uint8) * 3, (SIDE, 1))[..., None], 3, 2)
    filled = erasure.erase(ramp, box).astype(int)
    outside = ramp[~inside(box, ramp.shape)]
    assert filled.min() >= outside.min() and filled.max() <= outside.max()
    if box == BOX:
        assert (filled == ramp).all()


def test_nothing_to_fill_from_is_refused(clean):
    with pytest.raises(ValueError, match="whole image"):
        erasure.erase(clean, (0, 0, 64, 64))


def test_a_blank_image_tells_nothing_of_what_it_was():
    (first, _), (other, _) = phantom("Dermoscopy", "palm"), phantom("X-Ray", "hand")
    empty = erasure.blank(first)
    assert empty.shape == first.shape and empty.dtype == np.uint8 and len(np.unique(empty)) == 1
    assert (empty == erasure.blank(other)).all()


@pytest.mark.parametrize("box", [(-1, 0, 5, 5), (5, 5, 5, 9), (60, 60, 65, 64)])
def test_boxes_that_are_empty_or_leave_the_image_are_refused(clean, box):
    with pytest.raises(ValueError, match="box"):
        erasure.erase(clean, box)


def test_a_box_grows_as_far_as_the_image_goes():
    assert erasure.grown((1, 30, 62, 40), 3, (SIDE, SIDE, 3)) == (0, 27, 64, 43)


def test_what_is_asked_for_cannot_be_seen(clean):
    """The known lesion of a question that presupposes it, else all: that there is no lesion is an answer to others."""
    assert (erasure.unseen(LESION, clean, whole=False) == erasure.erase(clean, (16, 26, 36, 44))).all()
    empty = erasure.blank(clean)
    assert (erasure.unseen(LESION, clean, whole=True) == empty).all()
    for other in (
        {"question_type": "Disease Diagnosis"},
        {"question_type": "Modality Recognition"},
        {"box": []},
        {"box": [1, 1, 63, 63]},
    ):
        assert (erasure.unseen(LESION | other, clean, whole=False) == empty).all()
