"""The backgrounds of eight modalities, two anatomies each."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from safemed.data.phantoms.canvas import Canvas, Room


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
