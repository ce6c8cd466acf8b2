"""Lesions: what is found, where, how large, and how it is drawn over a background."""

import numpy as np

from safemed.data.phantoms.anatomy import MODALITIES, Scene
from safemed.data.phantoms.canvas import SENSOR_NOISE, Canvas, Room, Truth

FINDINGS = ("normal", "nodule", "cyst", "fissure", "calcifications")
RADII = {"small": 0.11, "moderate": 0.19, "large": 0.30}  # half a lesion's greatest extent, in image sides
RADIUS_SPREAD = 0.06  # relative; leaves gaps between the three sizes
HALO = 0.06  # width of the altered tissue round a lesion, in image sides
HALO_OPACITY, OPACITY = 0.85, 0.95  # of the halo over the background, of the lesion over its halo
CENTRE, SIDES = "centre", ("upper", "lower", "left", "right")
CORNERS = ("upper left", "upper right", "lower left", "lower right")


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
