"""Phantoms of every modality and anatomy, and places in them."""

import numpy as np

from safemed.data.phantoms import anatomy, canvas, lesions
from safemed.stress import erasure

SIDE = 64
BOX = (20, 30, 32, 40)
PLACES = [BOX, (0, 0, 12, 10), (52, 54, 64, 64), (0, 20, 20, 30), (5, 5, 60, 60)]
ANATOMIES = [(modality, anatomy) for modality, known in anatomy.MODALITIES.items() for anatomy in known.anatomies]
FIRST = [(modality, next(iter(known.anatomies))) for modality, known in anatomy.MODALITIES.items()]


def phantom(
    modality: str, anatomy: str, finding: str = "nodule", size: str = "moderate", side: int = SIDE, seed: int = 0
) -> tuple[np.ndarray, canvas.Truth]:
    return lesions.render(modality, anatomy, finding, size, np.random.default_rng(seed), side)


def is_grey(image: np.ndarray) -> bool:
    return bool((image == image[..., :1]).all())


def inside(box: erasure.Box, shape: tuple[int, ...], margin: int = 0) -> np.ndarray:
    """The pixels of a grown box, bool [H, W]."""
    x0, y0, x1, y1 = box
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    across = (columns >= x0 - margin) & (columns < x1 + margin)
    return across & (rows >= y0 - margin) & (rows < y1 + margin)
