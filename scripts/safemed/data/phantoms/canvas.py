"""Drawing on signed distances: an array [side, side] that is negative inside a shape, zero on its edge and positive
outside, in fractions of the image side. x runs right, y runs down, both from 0 to 1.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

SENSOR_NOISE = 0.02  # standard deviation, full scale 1


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
