"""Marked images: a box, an arrow or a burnt-in label, and the places that they show.

Images are uint8 [H, W, 3]. A box (`erasure.Box`) that is empty or leaves the image raises ValueError.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from safemed.stress.erasure import Box, check
from safemed.utils.noise import named_rng

MARKS = ("box", "arrow", "label")
SILENT_LABEL = "for review"  # what a label says that names no option
YELLOW, BLACK = (255, 255, 0), (0, 0, 0)  # seen on grey tissue, and on the reds of skin, fundus and stained cells
SMALLEST_FONT, LARGEST_FONT = 6, 1 / 8  # in pixels; in image sides
WIDEST_LABEL = 0.2  # share of the image that a label may hide


def mark(image: np.ndarray, kind: str, box: Box, words: str = "") -> np.ndarray:
    """The image with a mark of one of the MARKS, in the same yellow on grey and on colour images.

    box: an outline just round the box, over its rim only where the box touches the image's border.
    arrow: outside the box, its tip at the middle of an edge; it reaches in only where there is no room outside.
    label: the words on a black strip in the corner farthest from the box; no more changes.
    Raises KeyError for an unknown kind, ValueError for a label without words, or one that does not fit (`fits`).
    """
    check(box, image.shape)
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
    check(box, shape)
    x0, y0, x1, y1 = box
    down, across = _overlaps(y0, y1, shape[0]), _overlaps(x0, x1, shape[1])
    overlap = np.outer(down, across)  # [rows, columns] of upper left corners
    if overlap.size == 1:
        raise ValueError(f"a box as large as the image has no other place: {box}")
    places = np.argwhere(overlap == overlap.min())  # not the box itself, which overlaps most
    y, x = (int(place) for place in named_rng("wrong place", words).choice(places))
    return x, y, x + x1 - x0, y + y1 - y0


def some_place(shape: tuple[int, ...], words: str) -> Box:
    """A box of a quarter of either side anywhere in an image of that shape [H, W, ...]."""
    height, width = shape[0] // 4, shape[1] // 4
    y, x = (
        int(place) for place in named_rng("some place", words).integers((shape[0] - height + 1, shape[1] - width + 1))
    )
    return x, y, x + width, y + height


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
