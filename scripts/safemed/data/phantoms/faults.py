"""Faults of the acquisition: noise, blur and stripes."""

import numpy as np
from PIL import Image, ImageFilter

SOUND, FAULTY = "clear", 0.75  # an image's quality without a fault, the share of images with one
FAULT_NOISE, FAULT_BLUR = 0.16, 0.022  # standard deviations: full scale 1, image sides
STRIPE_PERIOD, STRIPE_CONTRAST = 1 / 16, 0.17  # image sides, full scale 1


def impair(image: np.ndarray, quality: str, rng: np.random.Generator) -> np.ndarray:
    """The image uint8 [side, side, 3] with the acquisition fault `quality`, of FAULTS, or as it is where SOUND.

    A fault is the same in all channels: grey stays grey. Raises KeyError for an unknown fault.
    """
    return image if quality == SOUND else FAULTS[quality](image, rng)


def _noisy(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise, as of too low a dose."""
    return _offset(image, FAULT_NOISE * rng.standard_normal((*image.shape[:2], 1), np.float32))


def _blurred(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A Gaussian blur, as of lost focus."""
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(FAULT_BLUR * len(image))))


def _striped(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Level stripes of alternating tone, as of a faulty detector."""
    y = (np.arange(len(image), dtype=np.float32) + 0.5) / len(image)
    wave = np.sin(2 * np.pi * (y / STRIPE_PERIOD + rng.random()))  # [side]
    return _offset(image, STRIPE_CONTRAST * np.sign(wave)[:, None, None])


FAULTS = {"noise": _noisy, "blur": _blurred, "stripes": _striped}


def _offset(image: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """The image with an offset of its tones of 0 to 1, clipped."""
    return np.rint(np.clip(image / np.float32(255) + offset, 0, 1) * 255).astype(np.uint8)
