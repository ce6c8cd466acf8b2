"""Erasures: images without what a question asks for.

Images are uint8 [H, W, 3]. Boxes are (x0, y0, x1, y1) in pixels, x1 and y1 exclusive; a box that is empty or leaves the
image raises ValueError.
"""

import numpy as np
from scipy.linalg import solve_sylvester

from safemed.data.clinical_stages import presupposes_lesion

Box = tuple[int, int, int, int]

GREY = 128
SOUND = "sound"  # nothing is erased
# The lesion's place; as large a place beside it; a place of an image without one; the organ's place; the whole image;
# the whole image, in whose place is one of another modality.
ERASURES = ("lesion", "elsewhere", "normal", "organ", "blank", "mismatch")
LESION_MARGIN = 0.07  # around a lesion's box, in image sides: its halo differs from the surroundings, too


def known(box: list[int], shape: tuple[int, ...], margin: int = 0) -> Box | None:
    """A box of the prepared questions grown by a margin in pixels; None where there is none, or it is all of the image.

    shape: of the image, [H, W, ...].
    """
    found = grown(box, margin, shape) if box else None
    return None if found == (0, 0, shape[1], shape[0]) else found


def lesion_box(question: dict, shape: tuple[int, ...]) -> Box | None:
    """What is erased of a lesion: its `known` box, grown by LESION_MARGIN."""
    return known(question["box"], shape, round(LESION_MARGIN * shape[0]))


def unseen(question: dict, image: np.ndarray, whole: bool) -> np.ndarray:
    """The image without what the question asks for.

    The lesion alone is erased where the question presupposes it and its place is known, unless `whole`. Otherwise
    everything is: "there is no lesion" answers other questions about lesions.
    """
    box = lesion_box(question, image.shape) if presupposes_lesion(question["question_type"]) else None
    return blank(image) if whole or box is None else erase(image, box)


def erase(image: np.ndarray, box: Box) -> np.ndarray:
    """The image with the box filled smoothly from the pixels just outside it.

    The fill solves Laplace's equation (no flow across the image's border): it keeps within the tones that surround it,
    does not depend on any pixel that it replaces, and leaves the others alone. Raises ValueError if the box leaves
    nothing of the image.
    """
    check(box, image.shape)
    height, width = image.shape[:2]
    x0, y0, x1, y1 = box
    if (x1 - x0, y1 - y0) == (width, height):
        raise ValueError(f"box {box} covers the whole image")
    across = _second_differences(x1 - x0, x0 > 0, x1 < width)
    down = _second_differences(y1 - y0, y0 > 0, y1 < height)
    filled = image.copy()
    for channel in range(image.shape[2]):  # a biharmonic fill would carry the rim's noise on and overshoot
        fill = solve_sylvester(down, across, _rim(image[..., channel], box))  # down @ fill + fill @ across
        filled[y0:y1, x0:x1, channel] = np.rint(fill)
    return filled


def blank(image: np.ndarray) -> np.ndarray:
    """An image of the same shape in one grey, the same for all images: a mean colour would give the modality away."""
    return np.full_like(image, GREY)


def grown(box: Box, margin: int, shape: tuple[int, ...]) -> Box:
    """The box with a margin in pixels on each side, as far as an image of that shape [H, W, ...] goes."""
    (x0, y0, x1, y1), (height, width) = box, shape[:2]
    return max(x0 - margin, 0), max(y0 - margin, 0), min(x1 + margin, width), min(y1 + margin, height)


def check(box: Box, shape: tuple[int, ...]) -> None:
    """Raise ValueError where a box is empty or leaves an image of that shape [H, W, ...]."""
    x0, y0, x1, y1 = box
    if not (0 <= x0 < x1 <= shape[1] and 0 <= y0 < y1 <= shape[0]):
        raise ValueError(f"box {box} is empty or leaves an image of {shape[1]} x {shape[0]} pixels")


def _second_differences(n: int, before: bool, after: bool) -> np.ndarray:
    """Minus the second difference along an axis [n, n], with or without a pixel of known tone at either end."""
    matrix = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    matrix[0, 0] -= not before
    matrix[-1, -1] -= not after
    return matrix


def _rim(channel: np.ndarray, box: Box) -> np.ndarray:
    """For each pixel of the box, the sum of its neighbours outside [y1 - y0, x1 - x0], zero away from the edges."""
    x0, y0, x1, y1 = box
    outside = np.pad(channel.astype(float), 1)
    outside[y0 + 1 : y1 + 1, x0 + 1 : x1 + 1] = 0  # the padding shifts all by one
    above, below = outside[y0:y1, x0 + 1 : x1 + 1], outside[y0 + 2 : y1 + 2, x0 + 1 : x1 + 1]
    left, right = outside[y0 + 1 : y1 + 1, x0:x1], outside[y0 + 1 : y1 + 1, x0 + 2 : x1 + 2]
    return above + below + left + right
