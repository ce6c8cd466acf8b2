"""The one decoding and the one resize of the study, and how two images are told to be the same."""

import hashlib
import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from safemed.data.records import BadRecord

DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow's modes of more than 8 bits a channel
HASH_SIDE = 16
ORIENTATION, TURNED = 0x0112, range(2, 9)  # the EXIF tag, and its values that turn or mirror


def load(path: Path) -> tuple[Image.Image, list[str]]:
    """An image file as 8-bit RGB, and the repairs: grey, palette and CMYK are converted, the first frame is taken.

    Repaired: an orientation that EXIF tells; transparency, laid over black; more than 8 bits, scaled linearly from the
    image's own range unless it keeps to 0..255. Raises BadRecord where the file is missing or cannot be decoded.
    """
    repairs: list[str] = []
    try:
        with Image.open(path) as image:
            turned = ImageOps.exif_transpose(image)
            if image.getexif().get(ORIENTATION) in TURNED:
                repairs.append("turned as its EXIF orientation says")
            return _to_rgb(turned, repairs), repairs
    except FileNotFoundError as error:
        raise BadRecord("image: no such file") from error
    except (OSError, EOFError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise BadRecord(f"image: {error}".replace(str(path), path.name)) from error


def resize(image: Image.Image, side: int) -> Image.Image:
    """side x side by Lanczos; the aspect ratio is not kept."""
    return image.resize((side, side), Image.Resampling.LANCZOS)


def to_png(image: Image.Image) -> bytes:
    """The image as PNG. The bytes may differ from one machine to another, the pixels do not."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def image_key(image: Image.Image) -> str:
    """16 hexadecimal digits that are equal for images of equal size and pixels."""
    return hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()[:16]


def dhash(image: Image.Image) -> str:
    """The 256-bit difference hash, 64 hexadecimal digits: is each cell of a 16 x 16 grid darker than the next one?

    Copies of a picture in another format, size or compression differ by a few bits.
    """
    cells = np.asarray(image.convert("L").resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX), np.int16)
    return np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes().hex()


def _to_rgb(image: Image.Image, repairs: list[str]) -> Image.Image:
    if image.mode in DEEP:
        image = _to_eight_bits(np.asarray(image, np.float64), repairs)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        if rgba.getextrema()[3][0] < 255:
            repairs.append("transparency laid over black")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    return image.convert("RGB")


def _to_eight_bits(pixels: np.ndarray, repairs: list[str]) -> Image.Image:
    if not np.isfinite(pixels).all():
        raise BadRecord("image: pixels that are not finite")
    low, high = pixels.min(), pixels.max()
    if low < 0 or high > 255:
        repairs.append(f"more than 8 bits: {low:g}..{high:g} scaled to 0..255")
        pixels = (pixels - low) / (high - low) * 255 if high > low else np.zeros_like(pixels)
    return Image.fromarray(np.rint(pixels).astype(np.uint8))
