"""The one decoding and the one resize of the study, and how two images are told to be the same."""

import contextlib
import errno
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from safemed.data.records import BadRecord

FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")  # Pillow runs a program for others
LARGEST = 2**30  # bytes of a file
NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)  # what a wrong path gives
DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow's modes of more than 8 bits a channel
HALF = 128  # levels of 8 bits
HASH_SIDE = 16
ORIENTATION, TURNED = 0x0112, range(2, 9)  # the EXIF tag, and its values that turn or mirror
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # the TIFF tag, and its value for which 0 is white
BITS, PLANAR, SEPARATE, SAMPLE_FORMAT, UNSIGNED, SIGNED = 258, 284, 2, 339, 1, 2  # further tags, and values of theirs
SWAPPED = ("I;16BS", "I;32BS", "F;32BF")  # what libtiff has put into the machine's order, and Pillow swaps again
PROBE = 2**28  # bytes; where they are not to be had, a decoder may have failed for want of memory


def load(path: Path) -> tuple[Image.Image, list[str]]:
    """An image file as 8-bit RGB, and the repairs: grey, palette and CMYK are converted.

    Repaired: an orientation that EXIF tells; transparency, laid over black; several frames or pages, of which the first
    is taken; more than 8 bits in one channel, scaled linearly from the image's own range unless they are whole numbers
    of 0..255; 16 bits in colour, of which the upper 8 are taken. Raises BadRecord where there is no such file, it
    cannot be decoded, would be read as another picture, or the upper 8 bits hold little of it. Raises OSError and
    MemoryError where the machine fails to read the file, which says nothing of the image.
    """
    repairs: list[str] = []
    image, deep_colour, white_is_zero = _decoded(_content(path), repairs)
    if image.mode in DEEP and "transparency" in image.info:
        raise BadRecord("image: more than 8 bits, and transparent; convert it to 8 bits")
    if deep_colour:
        _check_upper_bits(image, repairs)
    if image.mode in DEEP:
        image = _to_eight_bits(np.asarray(image, np.float64), image.mode == "F", white_is_zero, repairs)
    with _of_the_file():
        return _to_rgb(image, repairs), repairs


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


def _content(path: Path) -> bytes:
    """The bytes of the file."""
    try:
        if path.exists() and not path.is_file():
            raise BadRecord("image: no file, but a folder or a device")
        if path.stat().st_size > LARGEST:
            raise BadRecord(f"image: more than {LARGEST / 2**30:g} GiB")
        return path.read_bytes()
    except OSError as error:
        if error.errno not in NO_FILE:
            raise
        raise BadRecord(f"image: {error.strerror.lower()}") from error


@contextlib.contextmanager
def _of_the_file() -> Iterator[None]:
    """Raise BadRecord for whatever Pillow raises in the block: all bytes are there, so that the file is at fault."""
    try:
        yield
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        raise BadRecord(
            f"image: cannot identify it as any of {', '.join(FORMATS)}, or it is of a kind of these that cannot be "
            "read; convert it to 8 bits"
        ) from error
    except Exception as error:
        if getattr(error, "errno", None):
            raise
        np.empty(PROBE, np.uint8)  # raises MemoryError: then the machine may be at fault
        raise BadRecord(f"image: {error or type(error).__name__}") from error


def _decoded(content: bytes, repairs: list[str]) -> tuple[Image.Image, bool, bool]:
    """The first frame, turned; whether it has 16 bits in several channels, and whether its 0 is white."""
    with _of_the_file(), Image.open(io.BytesIO(content), formats=FORMATS) as image:
        if (frames := getattr(image, "n_frames", 1)) > 1:
            repairs.append(f"{frames} frames or pages, the first taken")
        _check_stored(image)
        deep_colour, white_is_zero = _has_deep_colour(image), _is_white_zero(image)
        if image.getexif().get(ORIENTATION) in TURNED:
            repairs.append("turned as its EXIF orientation says")
        turned = ImageOps.exif_transpose(image)
        if _is_wrapped(image, turned):
            raise ValueError("values above 2**31, which cannot be read; convert it to 8 bits")
        return turned, deep_colour, white_is_zero


def _check_stored(image: Image.Image) -> None:
    """Raise ValueError for a file that is not yet decoded and that Pillow would read as another picture."""
    if image.format != "TIFF":
        return
    bits, kinds = max(image.tag_v2.get(BITS, (1,))), image.tag_v2.get(SAMPLE_FORMAT, (UNSIGNED,))
    signed = bits == 8 and SIGNED in kinds
    planes = bits > 8 and len(image.tile) > 1 and image.tag_v2.get(PLANAR) == SEPARATE
    swapped = any(tile.codec_name == "libtiff" and tile.args[0] in SWAPPED for tile in image.tile)
    if signed or planes or swapped:
        raise ValueError("a TIFF of a kind that cannot be read; convert it to 8 bits")


def _is_wrapped(image: Image.Image, decoded: Image.Image) -> bool:
    """Whether unsigned values of a TIFF became negative."""
    unsigned = image.format == "TIFF" and image.tag_v2.get(SAMPLE_FORMAT, (UNSIGNED,))[0] == UNSIGNED
    return unsigned and decoded.mode == "I" and decoded.getextrema()[0] < 0


def _has_deep_colour(image: Image.Image) -> bool:
    """Whether a file that is not yet decoded has 16 bits in several channels, of which Pillow keeps the upper 8."""
    stored = [part for tile in image.tile for part in ([tile.args] if isinstance(tile.args, str) else tile.args or [])]
    if image.mode in DEEP:
        return False
    if image.format == "PPM":  # whose last argument is the greatest value
        return isinstance(stored[-1], int) and stored[-1] > 255
    # A BMP's BGR;16 has 16 bits a pixel.
    return any(isinstance(part, str) and ";16" in part and part != "BGR;16" for part in stored)


def _is_white_zero(image: Image.Image) -> bool:
    """Whether a TIFF says that 0 is white, which Pillow heeds in 8 bits alone."""
    return image.mode in DEEP and getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO


def _check_upper_bits(image: Image.Image, repairs: list[str]) -> None:
    """Raise BadRecord where the upper 8 of 16 bits span less than half of the range: the lower ones hold the rest."""
    low, high = zip(*image.convert("RGB").getextrema(), strict=True)  # of each channel
    if max(high) - min(low) < HALF:
        raise BadRecord(
            "image: 16 bits in colour, whose upper 8 span less than half of the range; convert it to 8 bits"
        )
    repairs.append("16 bits in colour: the upper 8 taken")


def _to_eight_bits(pixels: np.ndarray, floating: bool, white_is_zero: bool, repairs: list[str]) -> Image.Image:
    """Grey pixels of more than 8 bits as 8 bits."""
    if not np.isfinite(pixels).all():
        raise BadRecord("image: pixels that are not finite")
    low, high = pixels.min(), pixels.max()
    if white_is_zero:
        pixels = low + high - pixels
        repairs.append("inverted: its 0 is white")
    whole = low >= 0 and high <= 255 and (not floating or (high > 1 and (pixels % 1 == 0).all()))
    if not whole:
        repairs.append(f"more than 8 bits: {low:g}..{high:g} scaled to 0..255")
        pixels = (pixels - low) / (high - low) * 255 if high > low else np.zeros_like(pixels)
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


def _to_rgb(image: Image.Image, repairs: list[str]) -> Image.Image:
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        if rgba.getextrema()[3][0] < 255:
            repairs.append("transparency laid over black")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    return image.convert("RGB")
