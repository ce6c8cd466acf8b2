"""Corrupted images (Med-R2 Bench): noise, blur, JPEG and the artefacts of scanners, at an SSIM that is searched for.

Images are uint8 [H, W, 3]. What is drawn at random is drawn from a hash of words: the same words give the same pixels.
"""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.draw import disk
from skimage.metrics import structural_similarity
from skimage.transform import iradon, radon, resize

from safemed.utils.noise import named_rng

CORRUPTIONS = ("noise", "blur", "contrast", "jpeg", "motion", "ring", "metal")
SEVERITIES: dict[int, float] = {1: 0.95, 2: 0.85, 3: 0.7, 4: 0.55, 5: 0.4}  # the SSIM with the clean image to reach
CLOSE = 0.005  # an SSIM this near to its target ends the search
BISECTIONS = 14
FLATTEST = 0.9  # how much of its contrast an image may lose
WIDEST_BLUR = 1 / 8  # the greatest standard deviation, in image sides
FAULTY = 0.3  # of the detector's elements, those that draw a ring
VIEWS = 180  # projections of a scan
SCANNED = 128  # the longest side of a scan: in larger images, rings and streaks are as wide for their size


def ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Mean structural similarity of two images (Wang et al. 2004, Gaussian window of 11 pixels), over all channels.

    Equal images have 1. Raises ValueError where the shapes differ or a side is below 11 pixels.
    """
    return float(
        structural_similarity(
            first, second, channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
    )


def corrupt(image: np.ndarray, kind: str, severity: int, seed_words: str) -> tuple[np.ndarray, float]:
    """The image corrupted until its SSIM falls to the severity's target, and the SSIM reached.

    The strength is searched for each image, the random draw being the same at every severity. Where the kind at its
    strongest stays above the target, that is returned. Grey images stay grey. Raises KeyError for an unknown kind or
    severity.
    """
    target = SEVERITIES[severity]
    grey = (image == image[..., :1]).all()
    pixels = image[..., :1] if grey else image  # one channel of three equal ones is a third of the work
    found, reached = _search(pixels, _distortion(pixels, kind, named_rng(kind, seed_words)), target)
    return np.broadcast_to(found, image.shape).copy(), reached


def _search(pixels: np.ndarray, distort: Callable[[float], np.ndarray], target: float) -> tuple[np.ndarray, float]:
    """Bisect the strength, 0 to 1, for the SSIM nearest to the target: the image uint8 [H, W, C] and its SSIM."""

    def attempt(strength: float) -> tuple[np.ndarray, float]:
        distorted = np.clip(np.rint(distort(strength)), 0, 255).astype(np.uint8)
        return distorted, ssim(pixels, distorted)

    best = attempt(1.0)
    if best[1] >= target:
        return best
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        tried = attempt(middle)
        best = min(best, tried, key=lambda one: abs(one[1] - target))
        if abs(best[1] - target) < CLOSE:
            break
        low, high = (middle, high) if tried[1] > target else (low, middle)
    return best


def _distortion(pixels: np.ndarray, kind: str, rng: np.random.Generator) -> Callable[[float], np.ndarray]:
    """Strength, 0 to 1 -> the corrupted image as numbers [H, W, C], neither rounded nor clipped."""
    if kind in OPERATORS:
        return lambda strength: OPERATORS[kind](pixels, strength)
    pattern = PATTERNS[kind](pixels, rng)
    return lambda strength: pixels + strength * pattern


def _blur(pixels: np.ndarray, strength: float) -> np.ndarray:
    sigma = strength * WIDEST_BLUR * min(pixels.shape[:2])
    return gaussian_filter(pixels.astype(np.float32), (sigma, sigma, 0), mode="nearest")


def _jpeg(pixels: np.ndarray, strength: float) -> np.ndarray:
    """Quality 100 down to 1, the colours not subsampled."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.save(buffer, "JPEG", quality=round(100 - 99 * strength), subsampling=0)
    with Image.open(buffer) as decoded:
        return np.asarray(decoded).reshape(pixels.shape)


def _noise(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """White Gaussian noise, of full scale at strength 1."""
    return 255 * rng.standard_normal(pixels.shape)


def _flattening(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What takes the contrast away about the mean colour."""
    return FLATTEST * (pixels.mean((0, 1)) - pixels)


def _ghosts(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What replaces the image by ghosts of periodic motion: four copies at even distances along one axis, wrapped."""
    axis, weights = int(rng.integers(2)), rng.dirichlet(np.full(4, 4.0))
    step = round(rng.uniform(1 / 12, 1 / 5) * pixels.shape[axis])
    copies = [np.roll(pixels, turns * step, axis) for turns in (-2, -1, 1, 2)]
    return np.tensordot(weights, copies, 1) - pixels


def _rings(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The rings of miscalibrated detector elements: stripes along all angles of the sinogram, back projected."""
    height, width = _scanned(pixels.shape)
    elements = _elements((height, width))
    faults = rng.standard_normal(elements) * (rng.random(elements) < FAULTY)
    faults[rng.integers(elements // 2)] += 1.0  # one at least: a few elements may all be sound
    stripes = faults[np.abs(np.arange(elements) - elements // 2)]  # on both sides, as from the scanner's whole turn
    return _full_scale(_back_project(np.tile(stripes[:, None], VIEWS), (height, width)), pixels.shape)


def _metal(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A bright implant and its streaks: what the detector misses where it saturates behind it, back projected."""
    height, width = _scanned(pixels.shape)
    y, x = rng.uniform(0.3, 0.7, 2) * (height, width)
    implant = np.zeros((height, width))
    implant[disk((y, x), max(rng.uniform(0.04, 0.07) * min(height, width), 1))] = 255.0
    shadow = _project(implant)
    sinogram = _project(resize(pixels.mean(2), (height, width))) + shadow  # [elements, views]
    hidden = shadow > 0
    missed = hidden * np.maximum(sinogram - np.median(sinogram[hidden]), 0)
    streaks = _full_scale(_back_project(-missed, (height, width)), pixels.shape)
    return streaks + 50 * resize(implant, pixels.shape[:2])[..., None]  # bright as soon as its streaks are seen


OPERATORS = {"blur": _blur, "jpeg": _jpeg}  # of the image and a strength
PATTERNS = {"noise": _noise, "contrast": _flattening, "motion": _ghosts, "ring": _rings, "metal": _metal}  # are added


def _scanned(shape: tuple[int, ...]) -> tuple[int, int]:
    """The size H, W at which an image of that shape is scanned."""
    scale = min(1, SCANNED / max(shape[:2]))
    return round(shape[0] * scale), round(shape[1] * scale)


def _elements(shape: tuple[int, int]) -> int:
    """How many elements a detector has that sees the smallest square round the image from all sides."""
    return int(np.ceil(np.sqrt(2) * max(shape)))


def _offsets(shape: tuple[int, int]) -> tuple[int, int]:
    """Where an image lies in the smallest square round it, as y, x."""
    return (max(shape) - shape[0]) // 2, (max(shape) - shape[1]) // 2


def _angles() -> np.ndarray:
    """Of the views, in degrees."""
    return np.arange(VIEWS) * 180 / VIEWS


def _project(tones: np.ndarray) -> np.ndarray:
    """The sinogram [elements, VIEWS] of an image [H, W]."""
    y, x = _offsets(tones.shape)
    square = np.zeros((max(tones.shape),) * 2)
    square[y : y + tones.shape[0], x : x + tones.shape[1]] = tones
    return radon(square, _angles(), circle=False)


def _back_project(sinogram: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Filtered back projection [H, W] of a sinogram [elements, VIEWS]."""
    y, x = _offsets(shape)
    square = iradon(sinogram, _angles(), output_size=max(shape), circle=False)
    return square[y : y + shape[0], x : x + shape[1]]


def _full_scale(pattern: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A scan's pattern [h, w] with a standard deviation of 255, in the size of an image of that shape, [H, W, 1]."""
    return resize(pattern * (255 / pattern.std()), shape[:2])[..., None]
