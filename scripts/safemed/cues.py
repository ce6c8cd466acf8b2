"""Adversarial visuals (Med-R2 Bench's second kind of attack): images made worse, marked, or robbed of what they show.

Images are uint8 [H, W, 3]. Boxes are (x0, y0, x1, y1) in pixels, x1 and y1 exclusive; a box that is empty or leaves the
image raises ValueError. What is drawn at random is drawn from a hash of words: the same words give the same pixels.
"""

import hashlib
import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.linalg import solve_sylvester
from scipy.ndimage import gaussian_filter
from skimage.draw import disk
from skimage.metrics import structural_similarity
from skimage.transform import iradon, radon, resize

Box = tuple[int, int, int, int]

CORRUPTIONS = ("noise", "blur", "contrast", "jpeg", "motion", "ring", "metal")
SEVERITIES: dict[int, float] = {1: 0.95, 2: 0.85, 3: 0.7, 4: 0.55, 5: 0.4}  # the SSIM with the clean image to reach
MARKS = ("box", "arrow", "label")
CLOSE = 0.005  # an SSIM this near to its target ends the search
BISECTIONS = 14
FLATTEST = 0.9  # how much of its contrast an image may lose
WIDEST_BLUR = 1 / 8  # the greatest standard deviation, in image sides
FAULTY = 0.3  # of the detector's elements, those that draw a ring
VIEWS = 180  # projections of a scan
SCANNED = 128  # the longest side of a scan: in larger images, rings and streaks are as wide for their size
YELLOW, BLACK = (255, 255, 0), (0, 0, 0)  # seen on grey tissue, and on the reds of skin, fundus and stained cells
SMALLEST_FONT, LARGEST_FONT = 6, 1 / 8  # in pixels; in image sides
WIDEST_LABEL = 0.2  # share of the image that a label may hide


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
    found, reached = _search(pixels, _distortion(pixels, kind, _rng(kind, seed_words)), target)
    return np.broadcast_to(found, image.shape).copy(), reached


def mark(image: np.ndarray, kind: str, box: Box, words: str = "") -> np.ndarray:
    """The image with a mark of one of the MARKS, in the same yellow on grey and on colour images.

    box: an outline just round the box, over its rim only where the box touches the image's border.
    arrow: outside the box, its tip at the middle of an edge; it reaches in only where there is no room outside.
    label: the words on a black strip in the corner farthest from the box; no more changes.
    Raises KeyError for an unknown kind, ValueError for a label without words, or one that does not fit (`fits`).
    """
    _check(box, image.shape)
    canvas = Image.fromarray(image)
    DRAWERS[kind](canvas, box, words)
    return np.array(canvas)


def fits(words: str, shape: tuple[int, ...]) -> bool:
    """Whether a label of these words hides no more than WIDEST_LABEL of an image of that shape [H, W, ...]."""
    return _strip(Image.new("RGB", (shape[1], shape[0])), words) is not None


def wrong_place(box: Box, shape: tuple[int, ...], words: str) -> Box:
    """A box of the same size elsewhere in an image of that shape [H, W, ...], drawn from those that overlap least.

    It does not overlap the given box wherever there is room for that, and is never that box: raises ValueError if the
    box is as large as the image.
    """
    _check(box, shape)
    x0, y0, x1, y1 = box
    down, across = _overlaps(y0, y1, shape[0]), _overlaps(x0, x1, shape[1])
    overlap = np.outer(down, across)  # [rows, columns] of upper left corners
    if overlap.size == 1:
        raise ValueError(f"a box as large as the image has no other place: {box}")
    places = np.argwhere(overlap == overlap.min())  # not the box itself, which overlaps most
    y, x = (int(place) for place in _rng("wrong place", words).choice(places))
    return x, y, x + x1 - x0, y + y1 - y0


def some_place(shape: tuple[int, ...], words: str) -> Box:
    """A box of a quarter of either side anywhere in an image of that shape [H, W, ...]."""
    height, width = shape[0] // 4, shape[1] // 4
    y, x = (int(place) for place in _rng("some place", words).integers((shape[0] - height + 1, shape[1] - width + 1)))
    return x, y, x + width, y + height


def grown(box: Box, margin: int, shape: tuple[int, ...]) -> Box:
    """The box with a margin in pixels on each side, as far as an image of that shape [H, W, ...] goes."""
    (x0, y0, x1, y1), (height, width) = box, shape[:2]
    return max(x0 - margin, 0), max(y0 - margin, 0), min(x1 + margin, width), min(y1 + margin, height)


def erase(image: np.ndarray, box: Box, margin: int) -> np.ndarray:
    """The image with the box, grown by `margin` pixels, filled smoothly from the pixels just outside it.

    The fill solves Laplace's equation (no flow across the image's border): it keeps within the tones that surround it,
    does not depend on any pixel that it replaces, and leaves the others alone. Raises ValueError if the grown box
    leaves nothing of the image.
    """
    _check(box, image.shape)
    height, width = image.shape[:2]
    x0, y0, x1, y1 = grown(box, margin, image.shape)
    if (x1 - x0, y1 - y0) == (width, height):
        raise ValueError(f"box {box} with a margin of {margin} covers the whole image")
    across = _second_differences(x1 - x0, x0 > 0, x1 < width)
    down = _second_differences(y1 - y0, y0 > 0, y1 < height)
    filled = image.copy()
    for channel in range(image.shape[2]):  # a biharmonic fill would carry the rim's noise on and overshoot
        fill = solve_sylvester(down, across, _rim(image[..., channel], (x0, y0, x1, y1)))  # down @ fill + fill @ across
        filled[y0:y1, x0:x1, channel] = np.rint(fill)
    return filled


def blank(image: np.ndarray) -> np.ndarray:
    """An image of the same shape in one colour, the mean of the image."""
    return np.broadcast_to(np.rint(image.mean((0, 1))).astype(np.uint8), image.shape).copy()


def _rng(purpose: str, words: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(f"{purpose}/{words}".encode()).digest()[:16]))


def _check(box: Box, shape: tuple[int, ...]) -> None:
    x0, y0, x1, y1 = box
    if not (0 <= x0 < x1 <= shape[1] and 0 <= y0 < y1 <= shape[0]):
        raise ValueError(f"box {box} is empty or leaves an image of {shape[1]} x {shape[0]} pixels")


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


def _draw_box(canvas: Image.Image, box: Box, words: str) -> None:
    pen = _pen(canvas)
    (x0, y0, x1, y1), (width, height) = box, canvas.size
    corners = (max(x0 - pen, 0), max(y0 - pen, 0), min(x1 + pen, width) - 1, min(y1 + pen, height) - 1)
    ImageDraw.Draw(canvas).rectangle(corners, outline=YELLOW, width=pen)


def _draw_arrow(canvas: Image.Image, box: Box, words: str) -> None:
    """Along an axis, from the side with the most room."""
    (x0, y0, x1, y1), (width, height) = box, canvas.size
    x, y = (x0 + x1) // 2, (y0 + y1) // 2
    room, out, edge = max(  # pixels outside; the way from tip to tail; the pixel before the box
        (x0, (-1, 0), (x0 - 1, y)),
        (y0, (0, -1), (x, y0 - 1)),
        (width - x1, (1, 0), (x1, y)),
        (height - y1, (0, 1), (x, y1)),
    )
    length = int(np.clip(room - 1, min(canvas.size) // 8, min(canvas.size) // 4))
    tail = np.clip(np.add(edge, np.multiply(out, length)), 0, np.subtract(canvas.size, 1))  # [x, y]
    tip, head = tail - np.multiply(out, length), max(length // 3, 2)
    neck, half = tip + np.multiply(out, head), np.multiply(np.abs(out[::-1]), max(head * 2 // 3, 1))
    draw = ImageDraw.Draw(canvas)
    draw.line([*tail.tolist(), *neck.tolist()], fill=YELLOW, width=_pen(canvas))
    draw.polygon(np.concatenate([tip, neck + half, neck - half]).tolist(), fill=YELLOW)


def _draw_label(canvas: Image.Image, box: Box, words: str) -> None:
    if not words.strip():
        raise ValueError("a label needs words")
    if (strip := _strip(canvas, words)) is None:
        raise ValueError(f"the label {words!r} would hide more than {WIDEST_LABEL:.0%} of the image")
    draw, pad, (font, text, left, top, width, height) = ImageDraw.Draw(canvas), _pen(canvas), strip
    # The corner that is farthest from the box's centre.
    x = 0 if box[0] + box[2] > canvas.width else max(canvas.width - width, 0)
    y = 0 if box[1] + box[3] > canvas.height else max(canvas.height - height, 0)
    draw.rectangle((x, y, x + width - 1, y + height - 1), fill=BLACK)
    draw.multiline_text((x + pad - left, y + pad - top), text, YELLOW, font, spacing=pad)


DRAWERS = {"box": _draw_box, "arrow": _draw_arrow, "label": _draw_label}


def _pen(canvas: Image.Image) -> int:
    """The width of a line in pixels."""
    return max(1, min(canvas.size) // 96)


def _strip(canvas: Image.Image, words: str) -> tuple | None:
    """Font, lines, their left and top, and the strip's width and height: the largest that hides little enough.

    None where even the smallest font hides too much.
    """
    pad = _pen(canvas)
    for size in range(max(int(min(canvas.size) * LARGEST_FONT), SMALLEST_FONT), SMALLEST_FONT - 1, -1):
        font, text = _fitted(words, canvas.width - 2 * pad, size)
        left, top, right, bottom = ImageDraw.Draw(canvas).multiline_textbbox((0, 0), text, font, spacing=pad)
        width, height = int(np.ceil(right - left)) + 2 * pad, int(np.ceil(bottom - top)) + 2 * pad
        if width <= canvas.width and width * height <= WIDEST_LABEL * canvas.width * canvas.height:
            return font, text, left, top, width, height
    return None


def _fitted(words: str, width: int, largest: int) -> tuple[ImageFont.FreeTypeFont, str]:
    """The largest font in which the longest word fits into the width, and the words broken into lines that fit."""
    longest = max(words.split(), key=len)
    for size in range(max(largest, SMALLEST_FONT), SMALLEST_FONT - 1, -1):
        font = ImageFont.load_default(size)
        if font.getlength(longest) <= width:
            break
    lines = [""]
    for word in words.split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if font.getlength(longer) <= width else [*lines, word]
    return font, "\n".join(lines).strip()


def _overlaps(start: int, end: int, length: int) -> np.ndarray:
    """For each place of a segment as long as [start, end) on an axis: by how many pixels it overlaps that one."""
    places = np.arange(length - (end - start) + 1)
    return np.clip(end - start - np.abs(places - start), 0, None)


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
