"""Procedural phantoms of eight imaging modalities, and a study of questions about them in OmniMedVQA's layout.

Backgrounds are drawn from signed distances: an array [side, side] that is negative inside a shape, zero on its edge and
positive outside, in fractions of the image side. x runs right, y runs down, both from 0 to 1.
"""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from tqdm import tqdm

FINDINGS = ("normal", "nodule", "cyst", "fissure", "calcifications")
RADII = {"small": 0.11, "moderate": 0.19, "large": 0.30}  # half a lesion's greatest extent, in image sides
RADIUS_SPREAD = 0.06  # relative; leaves gaps between the three sizes
HALO = 0.06  # width of the altered tissue round a lesion, in image sides
HALO_OPACITY, OPACITY = 0.85, 0.95  # of the halo over the background, of the lesion over its halo
SENSOR_NOISE = 0.02  # standard deviation, full scale 1
MIN_IMAGES = 80  # one image for each modality, anatomy and finding
QUESTIONS = ("basic", "ladder")
SOUND, FAULTY = "clear", 0.75  # an image's quality without a fault, the share of images with one
FAULT_NOISE, FAULT_BLUR = 0.16, 0.022  # standard deviations: full scale 1, image sides
STRIPE_PERIOD, STRIPE_CONTRAST = 1 / 16, 0.17  # image sides, full scale 1
PRESENCE = ("lesion", "no lesion")
CENTRE, SIDES = "centre", ("upper", "lower", "left", "right")
CORNERS = ("upper left", "upper right", "lower left", "lower right")
WORDINGS = {
    "Modality Recognition": (
        "What is the imaging modality?",
        "Which imaging technique was used?",
        "How was this image acquired?",
    ),
    "Anatomy Identification": ("Which anatomy is shown?", "What part of the body is this?"),
    "Disease Diagnosis": ("What is the diagnosis?", "Which finding is present?", "What is the main finding?"),
    "Lesion Grading": ("How large is the lesion?", "What is the size of the lesion?"),
    "Image Quality": (
        "What is the image quality?",
        "How good is this acquisition?",
        "Which acquisition fault is visible, if any?",
    ),
    "Lesion Presence": ("Is a lesion present?", "Does the image show a lesion?"),
    "Lesion Localization": ("Where is the lesion?", "Where in the image is the lesion?"),
}


@dataclass(frozen=True, eq=False)
class Truth:
    """Where the organ lies, and what was drawn over the background: of a normal image an empty mask, and all else None.

    mask: bool [side, side], the pixels that the lesion covers by half or more.
    organ: the box of the room (see `Room.box`), whether there is a lesion or not; it holds the centre of a lesion, but
        a large one may reach out of it.
    box: x0, y0, x1, y1 in pixels, the mask's tightest box, x1 and y1 exclusive.
    centre: x, y in fractions of the side.
    place: where in the image the centre lies, as the viewer sees it, such as "upper left", "right" or "centre".
    """

    mask: np.ndarray
    organ: tuple[int, int, int, int]
    box: tuple[int, int, int, int] | None = None
    centre: tuple[float, float] | None = None
    place: str | None = None


@dataclass(frozen=True)
class Room:
    """The ellipse of the anatomy that a lesion is kept in, in fractions of the side."""

    x: float
    y: float
    rx: float
    ry: float

    def box(self, side: int) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1 in pixels of an image of that side, rounded outward and kept in it, x1 and y1 exclusive."""
        x0, y0 = (max(math.floor(edge * side), 0) for edge in (self.x - self.rx, self.y - self.ry))
        x1, y1 = (min(math.ceil(edge * side), side) for edge in (self.x + self.rx, self.y + self.ry))
        return x0, y0, x1, y1


class Canvas:
    """A picture being painted: float32 [side, side, channels] with tones of 0 to 1."""

    def __init__(self, side: int, ground: tuple[float, ...], rng: np.random.Generator):
        self.side = side
        self.rng = rng
        self.x, self.y = _grid(side)
        self.image = np.empty((side, side, len(ground)), np.float32)
        self.image[:] = ground

    def near(self, value: float, spread: float) -> float:
        """A number drawn uniformly within `spread` of `value`."""
        return value + spread * (2 * self.rng.random() - 1)

    def paint(self, distance: np.ndarray, tone, opacity=1.0, blur: float = 0.0) -> None:
        """Lay a tone over the inside of a shape, its edge one pixel (and `blur` image sides) wide."""
        coverage = np.clip(0.5 - distance / (1 / self.side + blur), 0, 1) * opacity  # [side, side]
        self.image += coverage[..., None] * (np.asarray(tone, np.float32) - self.image)

    def shade(self, gain: np.ndarray) -> None:
        """Multiply the picture by a gain [side, side]."""
        self.image *= gain[..., None]

    def ellipse(self, x: float, y: float, rx: float, ry: float, turn: float = 0.0) -> np.ndarray:
        """Distance to an ellipse turned by `turn` radians (exact for circles, else scaled from the nearer axis)."""
        dx, dy = self.x - x, self.y - y
        u, v = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
        return (np.hypot(u / rx, v / ry) - 1) * min(rx, ry)

    def bars(self, ends: list, half: float) -> np.ndarray:
        """Distance to the union of round-ended bars of half-width `half`, one for each x0, y0, x1, y1 of `ends`."""
        x0, y0, x1, y1 = np.asarray(ends, np.float32).T[:, :, None, None]  # each [bars, 1, 1]
        dx, dy, px, py = x1 - x0, y1 - y0, self.x - x0, self.y - y0
        along = np.clip((px * dx + py * dy) / (dx * dx + dy * dy), 0, 1)  # [bars, side, side]
        return np.sqrt(((px - along * dx) ** 2 + (py - along * dy) ** 2).min(0)) - half

    def angle(self, x: float, y: float) -> np.ndarray:
        """Polar angle [side, side] about a point, in radians."""
        return np.arctan2(self.y - y, self.x - x)

    def clouds(self, columns: int, rows: int) -> np.ndarray:
        """Smooth noise [side, side] of about zero mean and unit variance, with that many grains across and down."""
        grains = self.rng.standard_normal((rows, columns), np.float32)
        return _interpolator(self.side, rows) @ grains @ _interpolator(self.side, columns).T

    def tiles(self, columns: int, rows: int, jitter: float) -> tuple[np.ndarray, np.ndarray]:
        """Offsets x, y [side, side] of each pixel from the nearest of the jittered centres of a brick-like tiling."""
        row, column = np.mgrid[-1 : rows + 1, -1 : columns + 1].reshape(2, -1)
        drift = self.rng.uniform(-0.5, 0.5, (2, 1)) + self.rng.uniform(-jitter, jitter, (2, row.size))
        dx = self.x - ((column + 0.5 * (row % 2) + drift[0]) / columns).astype(np.float32)[:, None, None]
        dy = self.y - ((row + 0.5 + drift[1]) / rows).astype(np.float32)[:, None, None]  # [tiles, side, side]
        nearest = (dx * dx + dy * dy).argmin(0)[None]
        return np.take_along_axis(dx, nearest, 0)[0], np.take_along_axis(dy, nearest, 0)[0]


@lru_cache
def _grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    """x, y of the pixel centres, each float32 [side, side]."""
    centres = (np.arange(side, dtype=np.float32) + 0.5) / side
    return tuple(np.meshgrid(centres, centres))


@lru_cache
def _interpolator(side: int, grains: int) -> np.ndarray:
    """Weights float32 [side, grains] that interpolate grains smoothly, rows of unit energy to keep the variance."""
    gap = np.abs(np.linspace(0, grains - 1, side)[:, None] - np.arange(grains))
    weights = np.where(gap < 1, 0.5 + 0.5 * np.cos(np.pi * gap), 0)
    return (weights / np.linalg.norm(weights, axis=1, keepdims=True)).astype(np.float32)


def _ct_lungs(c: Canvas) -> Room:
    """Axial slice: body wall with ribs, two dark lungs, heart, aorta, spine, the table below."""
    x, y, rx, ry = c.near(0.5, 0.02), c.near(0.47, 0.02), c.near(0.45, 0.02), c.near(0.35, 0.02)
    body = c.ellipse(x, y, rx, ry)
    lungs = np.minimum(c.ellipse(x - 0.2, y, 0.17, 0.25, 0.15), c.ellipse(x + 0.2, y, 0.17, 0.25, -0.15))
    c.paint(np.abs(c.ellipse(x, 0.1, 0.8, 0.82)) - 0.008, 0.4)
    c.paint(body, 0.27)
    c.paint(body + 0.03, 0.4)
    c.paint(lungs, 0.07 + np.maximum(c.clouds(26, 26), 0)[..., None] * 0.05)
    c.paint(c.ellipse(x + 0.05, y - 0.06, 0.13, 0.12, 0.5), 0.42)
    c.paint(c.ellipse(x + 0.07, y + 0.13, 0.035, 0.035), 0.47)
    ribs = np.cos(9 * c.angle(x, y) + c.near(0, 3)) > 0.1
    c.paint(np.abs(body + 0.055) - 0.011, 0.66, ribs)
    c.paint(np.minimum(c.ellipse(x, y + 0.21, 0.055, 0.045), c.bars([(x, y + 0.2, x, y + 0.3)], 0.012)), 0.66)
    return Room(x, y - 0.02, rx - 0.05, ry - 0.04)


def _ct_head(c: Canvas) -> Room:
    """Axial slice: bright skull, grey brain, dark ventricles, falx."""
    x, y, rx, ry = c.near(0.5, 0.02), c.near(0.5, 0.02), c.near(0.38, 0.015), c.near(0.45, 0.015)
    head = c.ellipse(x, y, rx, ry)
    c.paint(head, 0.3)
    c.paint(head + 0.018, 0.8)
    c.paint(head + 0.058, 0.36 + 0.02 * c.clouds(12, 12)[..., None])
    c.paint(c.bars([(x, y - ry + 0.06, x, y + ry - 0.06)], 0.006), 0.52)
    for flip in (-1, 1):
        c.paint(c.ellipse(x + flip * 0.045, y - 0.09, 0.022, 0.08, flip * 0.4), 0.2)
        c.paint(c.ellipse(x + flip * 0.06, y + 0.1, 0.02, 0.075, flip * -0.5), 0.2)
    return Room(x, y, rx - 0.06, ry - 0.06)


def _mr_brain(c: Canvas) -> Room:
    """Axial slice: scalp, black skull, folded cortex round bright white matter, ventricles, midline."""
    x, y, rx, ry = c.near(0.5, 0.02), c.near(0.5, 0.02), c.near(0.39, 0.015), c.near(0.46, 0.015)
    head, angle, phase = c.ellipse(x, y, rx, ry), c.angle(x, y), c.near(0, 3)
    folds = np.sin(19 * angle + phase + 1.5 * np.sin(3 * angle + phase))
    c.paint(head, 0.42)
    c.paint(head + 0.022, 0.03)
    c.paint(head + 0.062 + 0.006 * folds, 0.28)
    c.paint(head + 0.105 + 0.03 * folds, 0.46 + 0.015 * c.clouds(9, 9)[..., None])
    c.paint(c.bars([(x, y - ry + 0.05, x, y - 0.16), (x, y + 0.18, x, y + ry - 0.05)], 0.009), 0.1)
    for flip in (-1, 1):
        c.paint(c.ellipse(x + flip * 0.045, y - 0.07, 0.026, 0.085, flip * 0.35), 0.1)
        c.paint(c.ellipse(x + flip * 0.13, y + 0.02, 0.03, 0.075, flip * -0.2), 0.34)
    return Room(x, y, rx - 0.07, ry - 0.07)


def _mr_knee(c: Canvas) -> Room:
    """Sagittal slice: femur above tibia with the joint between, the kneecap in front, muscle behind."""
    x, y = c.near(0.53, 0.02), c.near(0.52, 0.02)
    leg = np.abs(c.x - x + 0.01 + 0.03 * np.cos(2 * np.pi * (c.y - y))) - c.near(0.42, 0.015)
    femur = np.minimum(c.ellipse(x, y - 0.15, 0.25, 0.15), c.bars([(x + 0.01, -0.2, x + 0.01, y - 0.18)], 0.15))
    tibia = np.minimum(c.ellipse(x, y + 0.15, 0.24, 0.095), c.bars([(x + 0.02, y + 0.2, x + 0.04, 1.3)], 0.15))
    kneecap = c.ellipse(x - 0.34, y - 0.16, 0.05, 0.11, 0.1)
    c.paint(leg, 0.42)
    c.paint(leg + 0.035, 0.23 + 0.03 * c.clouds(22, 5)[..., None])
    c.paint(c.bars([(x - 0.33, y - 0.02, x - 0.2, y + 0.2)], 0.012), 0.08)
    for bone in (femur, tibia, kneecap):
        c.paint(bone - 0.02, 0.06)
        c.paint(bone, 0.46 + 0.02 * c.clouds(10, 10)[..., None])
    c.paint(c.ellipse(x, y + 0.024, 0.2, 0.018), 0.3)
    return Room(x, y, 0.38, 0.44)


def _xray_chest(c: Canvas) -> Room:
    """Frontal radiograph: dark lungs crossed by ribs, spine, heart to the viewer's right, diaphragm, collar bones."""
    x, y, width = c.near(0.5, 0.02), c.near(0.47, 0.02), c.near(0.15, 0.01)
    aside = np.abs(c.x - x)
    torso = 0.05 + 0.42 * np.clip((c.y - 0.05 - 0.25 * aside**2) * 5, 0, 1) * np.clip((0.62 - aside) * 5, 0, 1)
    c.image[:] = torso[..., None]
    dome = c.y - (y + 0.3 + 2.2 * (aside - 0.18) ** 2)
    lungs = np.minimum(
        c.ellipse(x - 0.19, y + 0.02, width, 0.36, 0.13), c.ellipse(x + 0.19, y + 0.02, width, 0.36, -0.13)
    )
    lungs = np.maximum(lungs, dome)
    c.paint(lungs, 0.12 + 0.012 * c.clouds(16, 16)[..., None], blur=0.02)
    ribs = np.cos(2 * np.pi * (8.5 * (c.y - 1.3 * (aside - 0.22) ** 2 + 0.25 * aside) + c.near(0, 0.5)))
    c.paint(-ribs / 25 + 0.01, 0.45, 0.42 * (lungs < 0.03))
    c.paint(c.ellipse(x + 0.06, y + 0.18, 0.145, 0.13, 0.5), 0.45, blur=0.02)
    vertebrae = 0.47 + 0.05 * np.cos(2 * np.pi * 11 * c.y)
    c.paint(aside - 0.05, vertebrae[..., None], blur=0.02)
    collars = [(x - 0.05, 0.17, x - 0.4, 0.1), (x + 0.05, 0.17, x + 0.4, 0.1)]
    c.paint(c.bars(collars, 0.014), 0.56, 0.8)
    return Room(x, y + 0.03, 0.36, 0.36)


def _xray_hand(c: Canvas) -> Room:
    """Frontal radiograph: the five rays of a hand, bones within soft tissue."""
    x, y, spread = c.near(0.52, 0.02), c.near(0.6, 0.02), c.near(1.0, 0.06)
    skin, bones = [(x, y + 0.2, x, 1.3)], [(x - 0.05, 0.93, x - 0.06, 1.3), (x + 0.06, 0.93, x + 0.07, 1.3)]
    for root, tilt, length in ((-0.13, -0.42, 0.4), (-0.045, -0.12, 0.47), (0.045, 0.14, 0.44), (0.13, 0.42, 0.34)):
        dx, dy = np.sin(tilt * spread), -np.cos(tilt * spread)
        kx, ky = x + root, y - 0.06 + 0.7 * root**2  # the knuckle
        skin.append((kx, ky, kx + length * dx, ky + length * dy))
        bones.append((x + root * 0.55, y + 0.2, kx - 0.02 * dx, ky - 0.02 * dy))
        for start, end in ((0.09, 0.45), (0.57, 0.75), (0.87, 0.97)):
            bones.append(
                (kx + start * length * dx, ky + start * length * dy, kx + end * length * dx, ky + end * length * dy)
            )
    skin.append((x - 0.1, y + 0.15, x - 0.36, y - 0.08))
    bones += [(x - 0.12, y + 0.17, x - 0.2, y + 0.08), (x - 0.24, y + 0.04, x - 0.3, y - 0.02)]
    c.paint(np.minimum(c.ellipse(x, y + 0.07, 0.21, 0.2), c.bars(skin, 0.058)), 0.24, blur=0.02)
    c.paint(c.bars(skin[:1], 0.13), 0.24, 0.6, blur=0.03)
    c.paint(c.bars(bones, 0.021), 0.48)
    c.paint(np.hypot(*c.tiles(13, 13, 0.2)) - 0.03, 0.45, c.ellipse(x, y + 0.25, 0.13, 0.06) < 0)
    return Room(x, y - 0.06, 0.36, 0.38)


def _speckle(c: Canvas) -> None:
    """Multiply by coherent grain of 64ths to 30ths of the side."""
    c.shade(np.clip(1 + 0.14 * c.clouds(30, 44) + 0.08 * c.clouds(64, 64), 0.4, 1.6))


def _ultrasound_breast(c: Canvas) -> Room:
    """Linear probe: bright skin, darker fat, streaky glandular tissue, chest muscle and its shadow below."""
    wave = 0.025 * np.sin(2 * np.pi * (c.x * c.near(1.0, 0.3) + c.near(0, 0.5)))
    depths = (0.02, 0.05, 0.07, 0.2, 0.23, 0.76, 0.79, 0.82, 0.86, 1.0)
    tones = (0.85, 0.8, 0.36, 0.34, 0.6, 0.5, 0.7, 0.28, 0.24, 0.1)
    layers = np.interp(c.y + wave * (c.y > 0.1), depths, tones)
    streaks = 0.055 * c.clouds(6, 26) + 0.03 * c.clouds(7, 10)
    c.image[:] = (layers + streaks)[..., None]
    _speckle(c)
    return Room(0.5, c.near(0.48, 0.01), 0.46, 0.34)


def _ultrasound_fetus(c: Canvas) -> Room:
    """Sector probe: a fan of tissue with the thin outline of a fetal head and its midline echo."""
    x, y, turn = c.near(0.5, 0.015), c.near(0.56, 0.02), c.near(0.0, 0.2)
    apex, depth = np.arctan2(np.abs(c.x - x), c.y + 0.22), np.hypot(c.x - x, c.y + 0.22)
    fan = np.maximum((apex - 0.57) * depth, np.maximum(depth - 1.17, 0.25 - depth))
    c.paint(fan, 0.42 + 0.05 * c.clouds(8, 14)[..., None])
    head = c.ellipse(x, y, c.near(0.39, 0.01), c.near(0.32, 0.01), turn)
    c.paint(head, 0.22 + 0.03 * c.clouds(9, 9)[..., None], fan < 0)
    c.paint(np.abs(head) - 0.012, 0.7, fan < 0)
    reach = 0.3 * np.array([np.cos(turn), np.sin(turn)])
    c.paint(c.bars([(x - reach[0], y - reach[1], x + reach[0], y + reach[1])], 0.006), 0.45)
    _speckle(c)
    return Room(x, y, 0.34, 0.28)


def _skin_field(c: Canvas) -> None:
    """Uneven pigment and the soft dark corners of a dermatoscope."""
    c.shade(1 + 0.035 * c.clouds(5, 5))
    c.shade(1 - 0.75 * np.clip(c.ellipse(0.5, 0.5, 0.53, 0.53), 0, 0.2) / 0.2)


def _dermoscopy_trunk(c: Canvas) -> Room:
    """Skin with a faint pigment net and thin curved hairs."""
    c.shade(1 + 0.03 * c.clouds(24, 24))
    _skin_field(c)
    for _ in range(5):
        turn, bend = c.near(0, np.pi), c.near(0, 0.6)
        u = (c.x - 0.5) * np.cos(turn) + (c.y - 0.5) * np.sin(turn)
        v = (c.y - 0.5) * np.cos(turn) - (c.x - 0.5) * np.sin(turn)
        hair = np.abs(v - c.near(0, 0.45) - bend * u * u) - 0.004
        c.paint(np.maximum(hair, np.abs(u - c.near(0, 0.2)) - 0.35), (0.3, 0.17, 0.1), 0.65)
    return Room(0.5, 0.5, 0.43, 0.43)


def _dermoscopy_palm(c: Canvas) -> Room:
    """Skin with parallel ridges dotted by sweat ducts, and a crease."""
    turn, phase = c.near(0.6, 0.6), c.near(0, 0.5)
    u = c.x * np.cos(turn) + c.y * np.sin(turn)
    v = c.y * np.cos(turn) - c.x * np.sin(turn)
    across = v + 0.25 * (u - 0.6) ** 2 + 0.01 * c.clouds(5, 5)
    ridge = np.cos(2 * np.pi * (9 * across + phase))
    c.shade(1 + 0.2 * ridge)
    c.paint(0.06 * (1.5 - ridge - np.cos(2 * np.pi * 10 * u)), (1.0, 0.93, 0.88), 0.7)
    c.paint(np.abs(u - c.near(0.6, 0.25) - 0.2 * v * v) - 0.008, (0.62, 0.34, 0.28), 0.6)
    _skin_field(c)
    return Room(0.5, 0.5, 0.43, 0.43)


def _fundus(c: Canvas, disc_side: int) -> Room:
    """Retina in a round field: optic disc on one side (1: the viewer's right), vessels arching round the fovea."""
    x, y, field = c.near(0.5, 0.01), c.near(0.5, 0.01), c.near(0.475, 0.01)
    dx, dy = x + disc_side * c.near(0.33, 0.01), y + c.near(0, 0.03)
    glow = 1.08 - 1.1 * ((c.x - x) ** 2 + (c.y - y) ** 2) + 0.04 * c.clouds(6, 6)
    fovea = np.exp(-((c.x - x + disc_side * 0.06) ** 2 + (c.y - y) ** 2) / 0.004)
    c.image[:] = np.array((0.86, 0.42, 0.17), np.float32) * (glow - 0.22 * fovea)[..., None]
    out, up = disc_side * (dx - c.x), c.y - dy  # out: away from the disc towards the fovea
    for bend, width in ((c.near(2.6, 0.4), 0.009), (c.near(6.5, 1), 0.006), (-c.near(2.5, 0.5), 0.007)):
        vessel = np.abs(out - bend * up * up) / np.hypot(1, 2 * bend * up)
        c.paint(vessel - width, (0.5, 0.13, 0.08), 0.75)
    twigs = [
        (dx - disc_side * a, dy + s * b, dx - disc_side * e, dy + s * f)
        for s in (-1, 1)
        for a, b, e, f in ((0.12, 0.2, 0.3, 0.15), (0.3, 0.32, 0.5, 0.22))
    ]
    c.paint(c.bars(twigs, 0.003), (0.5, 0.13, 0.08), 0.6)
    c.paint(c.ellipse(dx, dy, 0.07, 0.08), (1.0, 0.83, 0.5), blur=0.02)
    c.paint(c.ellipse(dx, dy, 0.03, 0.035), (1.0, 0.95, 0.78), blur=0.02)
    c.paint(-c.ellipse(x, y, field, field), (0.01, 0.01, 0.01))
    return Room(x - disc_side * 0.1, y, 0.33, 0.38)


def _fundus_left(c: Canvas) -> Room:
    """A left eye, OS (oculus sinister): the optic disc on the viewer's left."""
    return _fundus(c, -1)


def _fundus_right(c: Canvas) -> Room:
    """A right eye, OD (oculus dexter): the optic disc on the viewer's right."""
    return _fundus(c, 1)


RETINA_DEPTHS = (-0.03, 0.0, 0.1, 0.16, 0.36, 0.42, 0.52, 0.58, 0.84, 0.88, 0.92, 1.0, 1.06, 1.12, 1.9)
RETINA_TONES = (0.04, 0.6, 0.6, 0.4, 0.4, 0.24, 0.24, 0.42, 0.22, 0.5, 0.3, 0.78, 0.78, 0.42, 0.08)


def _retina(c: Canvas, surface: np.ndarray, floor: np.ndarray | float) -> np.ndarray:
    """Tones [side, side] of the retina's layers between the heights of its surface and of its pigment floor."""
    return np.interp((c.y - surface) / (floor - surface), RETINA_DEPTHS, RETINA_TONES)


def _oct_macula(c: Canvas) -> Room:
    """Cross-section: layers unbroken below the shallow pit of the fovea."""
    x, top = c.near(0.5, 0.05), c.near(0.33, 0.03)
    bow = c.near(0.25, 0.1) * (c.x - x) ** 2 + c.near(0, 0.06) * (c.x - 0.5)
    pit = c.near(0.13, 0.01) * np.exp(-(((c.x - x) / 0.12) ** 2))
    c.image[:] = _retina(c, top - bow + pit, top - bow + 0.32)[..., None]
    c.shade(1 + 0.16 * c.clouds(32, 32))
    return Room(0.5, top + 0.17, 0.44, 0.36)


def _oct_nerve(c: Canvas) -> Room:
    """Cross-section: layers sloping into the deep cup of the optic nerve head, the pigment floor broken there."""
    x, top = c.near(0.5, 0.05), c.near(0.33, 0.03)
    aside = np.abs(c.x - x)
    rim = top - 0.09 * np.exp(-(((aside - 0.24) / 0.12) ** 2))
    cup = rim + 0.45 * np.exp(-((aside / 0.15) ** 3))
    c.image[:] = _retina(c, rim, top + 0.27)[..., None]
    c.paint(aside - 0.14, 0.42 - 0.4 * np.clip(c.y - 0.65, 0, 1)[..., None], blur=0.04)
    c.paint(c.y - cup, 0.04)
    c.paint(np.abs(c.y - cup - 0.02) - 0.02, 0.6)
    c.shade(1 + 0.16 * c.clouds(32, 32))
    return Room(0.5, top + 0.14, 0.44, 0.36)


def _microscopy_blood(c: Canvas) -> Room:
    """A stained smear: red cells with pale middles on a clear ground."""
    radius = np.hypot(*c.tiles(7, 8, 0.22))
    c.paint(radius - c.near(0.056, 0.004), (0.85, 0.5, 0.52))
    c.paint(radius - 0.022, (0.93, 0.72, 0.71), blur=0.03)
    return Room(0.5, 0.5, 0.46, 0.46)


def _microscopy_colon(c: Canvas) -> Room:
    """Stained mucosa: packed glands, each a dotted rim of nuclei round pale cells, in pink stroma."""
    c.image += 0.03 * c.clouds(20, 20)[..., None]
    dx, dy = c.tiles(3, 4, 0.1)
    dx = 0.74 * dx  # glands are cut oblong, unlike any cyst
    angle, radius = np.arctan2(dy, dx), np.hypot(dx, dy)
    c.paint(radius - 0.112, (0.9, 0.76, 0.87))
    c.paint(np.abs(radius - 0.098) - 0.014, (0.58, 0.38, 0.68), 0.3 + 0.7 * (np.cos(13 * angle) > -0.2))
    c.paint(radius - 0.035, (0.97, 0.93, 0.96), blur=0.02)
    return Room(0.5, 0.5, 0.46, 0.46)


@dataclass(frozen=True)
class Scene:
    """One anatomy in one modality: what paints it on which ground, and the tones of lesions and of their halos.

    The halo parts a lesion's shape from whatever the anatomy has there: cells, vessels and bones look like lesions.
    """

    paint: Callable[[Canvas], Room]
    ground: tuple[float, ...]
    lesion: tuple[float, ...]
    halo: tuple[float, ...]


@dataclass(frozen=True)
class Modality:
    """A modality under OmniMedVQA's modality_type, its short name as an answer, its dataset and its two anatomies."""

    modality_type: str
    answer: str
    dataset: str
    anatomies: dict[str, Scene]


BLACK, WHITE = (0.03,), (0.98,)
BROWN, CLOT, INK = (0.13, 0.06, 0.04), (0.1, 0.01, 0.02), (0.1, 0.03, 0.16)
PALE, EXUDATE, CLEAR = (0.96, 0.88, 0.8), (1.0, 0.86, 0.6), (0.98, 0.93, 0.97)
MODALITIES = {
    modality.modality_type: modality
    for modality in (
        Modality(
            "CT(Computed Tomography)",
            "CT",
            "Phantom CT",
            {
                "lungs": Scene(_ct_lungs, BLACK, WHITE, BLACK),
                "head": Scene(_ct_head, BLACK, WHITE, BLACK),
            },
        ),
        Modality(
            "MR (Mag-netic Resonance Imaging)",
            "MR",
            "Phantom MR",
            {
                "brain": Scene(_mr_brain, BLACK, WHITE, BLACK),
                "knee": Scene(_mr_knee, BLACK, WHITE, BLACK),
            },
        ),
        Modality(
            "X-Ray",
            "X-ray",
            "Phantom X-ray",
            {
                "chest": Scene(_xray_chest, BLACK, WHITE, BLACK),
                "hand": Scene(_xray_hand, BLACK, WHITE, BLACK),
            },
        ),
        Modality(
            "ultrasound",
            "ultrasound",
            "Phantom Ultrasound",
            {
                "breast": Scene(_ultrasound_breast, BLACK, BLACK, WHITE),
                "fetus": Scene(_ultrasound_fetus, BLACK, WHITE, BLACK),
            },
        ),
        Modality(
            "Dermoscopy",
            "dermoscopy",
            "Phantom Dermoscopy",
            {
                "trunk": Scene(_dermoscopy_trunk, (0.84, 0.64, 0.52), BROWN, PALE),
                "palm": Scene(_dermoscopy_palm, (0.93, 0.52, 0.5), BROWN, PALE),
            },
        ),
        Modality(
            "Fundus Photography",
            "fundus photography",
            "Phantom Fundus",
            {
                "OS": Scene(_fundus_left, (0.0, 0.0, 0.0), CLOT, EXUDATE),
                "OD": Scene(_fundus_right, (0.0, 0.0, 0.0), CLOT, EXUDATE),
            },
        ),
        Modality(
            "OCT (Optical Coherence Tomography",
            "OCT",
            "Phantom OCT",
            {
                "macula": Scene(_oct_macula, BLACK, WHITE, BLACK),
                "optic nerve": Scene(_oct_nerve, BLACK, WHITE, BLACK),
            },
        ),
        Modality(
            "Microscopy Images",
            "microscopy",
            "Phantom Microscopy",
            {
                "blood": Scene(_microscopy_blood, (0.95, 0.9, 0.88), INK, CLEAR),
                "colon": Scene(_microscopy_colon, (0.88, 0.62, 0.75), INK, CLEAR),
            },
        ),
    )
}


def render(
    modality: str, anatomy: str, finding: str, size: str | None, rng: np.random.Generator, side: int = 64
) -> tuple[np.ndarray, Truth]:
    """One phantom, uint8 [side, side, 3] (three equal channels in grey modalities), and what is in it.

    From generators in the same state, the image with and without a lesion differ only within the lesion's halo. `size`
    is ignored for "normal". Raises KeyError for an unknown modality (a modality_type), anatomy, finding or size.
    """
    scene = MODALITIES[modality].anatomies[anatomy]
    canvas = Canvas(side, scene.ground, rng)
    room = scene.paint(canvas)
    canvas.image *= np.float32(canvas.near(1.0, 0.06))
    # Drawn before the lesion, so that the same generator gives the same background and noise whatever the finding.
    noise = SENSOR_NOISE * rng.standard_normal(canvas.image.shape, np.float32)
    truth = Truth(np.zeros((side, side), bool), room.box(side))
    if finding != "normal":
        truth = _add_lesion(canvas, room, finding, RADII[size], scene)
    tones = np.clip(canvas.image + noise, 0, 1) * 255
    return np.broadcast_to(np.rint(tones).astype(np.uint8), (side, side, 3)).copy(), truth


def _add_lesion(canvas: Canvas, room: Room, finding: str, radius: float, scene: Scene) -> Truth:
    """Paint a lesion in its halo somewhere in the room."""
    radius *= canvas.near(1.0, RADIUS_SPREAD)
    x, y = _centre(room, radius, canvas.rng)
    distance = SHAPES[finding](canvas, x, y, radius)
    canvas.paint(canvas.ellipse(x, y, radius + HALO, radius + HALO), scene.halo, HALO_OPACITY, blur=0.03)
    canvas.paint(distance, scene.lesion, OPACITY)
    mask = distance <= 0
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return Truth(mask, room.box(canvas.side), box, (x, y), _place(x, y))


def _centre(room: Room, radius: float, rng: np.random.Generator) -> tuple[float, float]:
    """A uniformly drawn centre from which a lesion stays in the room, or nearly so if it fills it."""
    angle, reach = 2 * np.pi * rng.random(), np.sqrt(rng.random())
    x = room.x + reach * np.cos(angle) * max(room.rx - radius, 0.04)
    y = room.y + reach * np.sin(angle) * max(room.ry - radius, 0.04)
    return float(x), float(y)


def _place(x: float, y: float) -> str:
    """Where a point lies in the image, the middle being a seventh of the side wide."""
    row = "upper" if y < 3 / 7 else "lower" if y > 4 / 7 else ""
    column = "left" if x < 3 / 7 else "right" if x > 4 / 7 else ""
    return f"{row} {column}".strip() or CENTRE


def _nodule(c: Canvas, x: float, y: float, radius: float) -> np.ndarray:
    """Distance to a filled disc."""
    return c.ellipse(x, y, radius, radius)


def _cyst(c: Canvas, x: float, y: float, radius: float) -> np.ndarray:
    """Distance to a ring whose wall is two fifths of the radius."""
    wall = 0.4 * radius
    return np.abs(c.ellipse(x, y, radius, radius) + wall / 2) - wall / 2


def _fissure(c: Canvas, x: float, y: float, radius: float) -> np.ndarray:
    """Distance to a bar of any direction, three fifths of the radius wide."""
    half, turn = 0.3 * radius, c.near(0, np.pi)
    dx, dy = (radius - half) * np.cos(turn), (radius - half) * np.sin(turn)
    return c.bars([(x - dx, y - dy, x + dx, y + dy)], half)


def _calcifications(c: Canvas, x: float, y: float, radius: float) -> np.ndarray:
    """Distance to four dots at the corners of a warped square."""
    dot = 0.28 * radius
    turns = c.near(0, np.pi) + np.arange(4) * np.pi / 2 + c.rng.uniform(-0.15, 0.15, 4)
    xs, ys = x + (radius - dot) * np.cos(turns), y + (radius - dot) * np.sin(turns)
    return np.minimum.reduce([c.ellipse(dx, dy, dot, dot) for dx, dy in zip(xs, ys, strict=True)])


SHAPES = {"nodule": _nodule, "cyst": _cyst, "fissure": _fissure, "calcifications": _calcifications}


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


def _offset(image: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """The image with an offset of its tones of 0 to 1, clipped."""
    return np.rint(np.clip(image / np.float32(255) + offset, 0, 1) * 255).astype(np.uint8)


FAULTS = {"noise": _noisy, "blur": _blurred, "stripes": _striped}


@dataclass(frozen=True)
class Case:
    """What one image of a study is to show."""

    modality: Modality
    anatomy: str
    finding: str
    size: str | None


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Endless shuffled cases, balanced early: a longer study starts with the cases of a shorter one.

    Each 16 in turn hold every anatomy of every modality once and every finding 3 or 4 times; each 80 hold every
    finding in every anatomy once; each 240 every lesion in every anatomy in every size once.
    """
    anatomies = [(modality, anatomy) for modality in MODALITIES.values() for anatomy in modality.anatomies]
    lesions, sizes = len(FINDINGS) - 1, list(RADII)
    while True:
        first_finding = rng.permutation(len(anatomies))
        # [modality, lesion of either anatomy]: permuted within a modality, so that sizes are even there within 80.
        first_size = rng.permuted(np.tile(np.arange(2 * lesions), (len(MODALITIES), 1)), axis=1)
        for turn in range(len(FINDINGS) * len(sizes)):
            for cell in rng.permutation(len(anatomies)):
                finding = (first_finding[cell] + turn) % len(FINDINGS)
                lesion = cell % 2 * lesions + finding - 1
                size = sizes[(first_size[cell // 2, lesion] + turn // len(FINDINGS)) % len(sizes)]
                yield Case(*anatomies[cell], FINDINGS[finding], size if finding else None)


def _options(case: Case, rng: np.random.Generator) -> dict[str, tuple[str, list[str]]]:
    """For each question type that applies: the gold option and all options, in a random order."""
    answers = [modality.answer for modality in MODALITIES.values()]
    drawn = {
        "Modality Recognition": (case.modality.answer, answers, 4),
        "Anatomy Identification": (case.anatomy, list(case.modality.anatomies), 2),
        "Disease Diagnosis": (case.finding, list(FINDINGS), 4),
    }
    if case.size:
        drawn["Lesion Grading"] = (case.size, list(RADII), 3)
    return {kind: (gold, _draw(gold, names, number, rng)) for kind, (gold, names, number) in drawn.items()}


def _ladder_options(truth: Truth, quality: str, rng: np.random.Generator) -> dict[str, tuple[str, list[str]]]:
    """The same for the question types that the ladder adds."""
    presence = PRESENCE[truth.place is None]
    drawn = {
        "Image Quality": (quality, _draw(quality, [SOUND, *FAULTS], 4, rng)),
        "Lesion Presence": (presence, _draw(presence, list(PRESENCE), 2, rng)),
    }
    if truth.place:
        drawn["Lesion Localization"] = (truth.place, _draw_places(truth.place, rng))
    return drawn


def _draw(gold: str, names: list[str], number: int, rng: np.random.Generator) -> list[str]:
    """`number` of the names in random order: gold, and the rest drawn uniformly."""
    others = rng.permutation([name for name in names if name != gold])[: number - 1]
    return rng.permutation([gold, *others]).tolist()


def _draw_places(gold: str, rng: np.random.Generator) -> list[str]:
    """The centre and three sides or three corners, gold among them, in random order.

    A quarter of the lesions lie at the centre, an eighth on each side, a sixteenth in each corner: offered together,
    each option is right about equally often, which it would not be among places drawn uniformly.
    """
    cornered = gold in CORNERS or (gold == CENTRE and rng.random() < 1 / 3)
    others = rng.permutation(CORNERS if cornered else SIDES).tolist()
    return rng.permutation(list(dict.fromkeys([CENTRE, gold, *others]))[:4]).tolist()


def _records(
    case: Case, truth: Truth, image_path: str, asked: dict[str, tuple[str, list[str]]], rng: np.random.Generator
) -> Iterator[dict]:
    """OmniMedVQA's records of what is asked of one image, their question_id still to be filled in."""
    for kind, (gold, options) in asked.items():
        yield {
            "dataset": case.modality.dataset,
            "question_id": None,
            "question_type": kind,
            "question": str(rng.choice(WORDINGS[kind])),
            "gt_answer": gold,
            "image_path": image_path,
            **{f"option_{letter}": option for letter, option in zip("ABCD", options, strict=False)},
            "modality_type": case.modality.modality_type,
            "finding": case.finding,
            "size": case.size,
            "anatomy": case.anatomy,
            "place": truth.place,
            "box": truth.box,
            "organ": truth.organ,
        }


def _phantom(
    case: Case, image_path: str, seed: np.random.SeedSequence, side: int, questions: str
) -> tuple[np.ndarray, list[dict]]:
    """One image of a study, uint8 [side, side, 3], and its records."""
    # The ladder has generators of its own: what is drawn and asked in a basic study is the same in it.
    picture_rng, question_rng, fault_rng, ladder_rng = map(np.random.default_rng, seed.spawn(4))
    image, truth = render(case.modality.modality_type, case.anatomy, case.finding, case.size, picture_rng, side)
    records = list(_records(case, truth, image_path, _options(case, question_rng), question_rng))
    if questions == "basic":
        return image, records
    quality = str(fault_rng.choice(list(FAULTS))) if fault_rng.random() < FAULTY else SOUND
    asked = _ladder_options(truth, quality, ladder_rng)
    records += _records(case, truth, image_path, asked, ladder_rng)
    return impair(image, quality, fault_rng), [record | {"quality": quality} for record in records]


def write_study(out: Path, images: int, seed: int, side: int = 64, questions: str = "basic") -> None:
    """Write a study of `images` phantoms of side x side pixels in OmniMedVQA's layout into the folder `out`.

    Images/<dataset>/<number>.png (8-bit, grey modalities in mode L) and QA_information/Open-access/<dataset>.json, a
    list of 3 records an image, 4 where it has a lesion. Reproducible to the byte; image i and its questions are the
    same however many images follow.

    questions: "ladder" adds to them the image quality, whether there is a lesion and where it lies (2 records an image,
    3 where it has a lesion), and gives a share FAULTY of the images an acquisition fault (see `impair`), told by the
    records' "quality": SOUND and each fault are as frequent. 4 of 5 have a lesion, which the text may know.

    Raises ValueError if images is below MIN_IMAGES or questions none of QUESTIONS.
    """
    if images < MIN_IMAGES:
        raise ValueError(f"a balanced study needs at least {MIN_IMAGES} images, got {images}")
    if questions not in QUESTIONS:
        raise ValueError(f"questions must be one of {', '.join(QUESTIONS)}, got {questions!r}")
    plan_seed, images_seed = np.random.SeedSequence(seed).spawn(2)
    plan = cases(np.random.default_rng(plan_seed))
    records = {modality.dataset: [] for modality in MODALITIES.values()}
    for dataset in records:
        (out / "Images" / dataset).mkdir(parents=True, exist_ok=True)
    for number, image_seed in enumerate(tqdm(images_seed.spawn(images), desc="phantoms", unit="image")):
        case = next(plan)
        path = f"Images/{case.modality.dataset}/{number:06d}.png"
        image, rows = _phantom(case, path, image_seed, side, questions)
        _save(image, out / path)
        records[case.modality.dataset] += rows
    _write_questions(out / "QA_information" / "Open-access", records)


def _save(image: np.ndarray, path: Path) -> None:
    """Write a PNG, in one channel if all three are equal."""
    grey = (image == image[..., :1]).all()
    Image.fromarray(image[..., 0] if grey else image).save(path)


def _write_questions(folder: Path, records: dict[str, list[dict]]) -> None:
    """Number the records within their dataset and write one JSON list a dataset."""
    folder.mkdir(parents=True, exist_ok=True)
    for dataset, rows in records.items():
        numbered = [row | {"question_id": f"{dataset}_{number:04d}"} for number, row in enumerate(rows, 1)]
        (folder / f"{dataset}.json").write_text(json.dumps(numbered, indent=1) + "\n")
