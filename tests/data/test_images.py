"""Every kind of image file becomes 8-bit RGB by one stated way, and copies of a picture are told from others."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from benchmarks import fuzz_prepare
from PIL import Image

from safemed.data import images
from safemed.data.records import BadRecord
from support.paths import ROOT
from support.records import picture

RAMP = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1))  # [32, 32] from dark to bright


def loaded(path) -> tuple[np.ndarray, list[str]]:
    """Pixels and repairs."""
    image, repairs = images.load(path)
    assert image.mode == "RGB"
    return np.asarray(image), repairs


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.TIFF", "a & b (1)%#..png"])
def test_lossless_formats_give_the_pixels(tmp_path, name):
    Image.fromarray(picture(0)).save(tmp_path / name)
    pixels, repairs = loaded(tmp_path / name)
    assert (pixels == picture(0)).all() and not repairs


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1", "LA", "RGBA"])
def test_other_modes_are_converted(tmp_path, mode):
    image = Image.fromarray(RAMP).convert(mode)
    image.save(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"))
    pixels, repairs = loaded(next(tmp_path.iterdir()))
    assert (pixels == np.asarray(image.convert("RGB"))).all() and not repairs


def test_sixteen_bits_are_scaled_from_their_own_range_and_not_clipped(tmp_path):
    deep = (RAMP.astype(np.uint16) * 16) + 100  # 12-bit values, as scanners give them
    Image.fromarray(deep).save(tmp_path / "a.png")
    pixels, repairs = loaded(tmp_path / "a.png")
    expected = (RAMP.astype(float) / RAMP.max() * 255).round()
    assert (pixels[..., 0] == expected).all() and "scaled" in repairs[0]


def test_eight_bits_in_a_wider_mode_stay_as_they_are(tmp_path):
    Image.fromarray(RAMP.astype(np.int32)).save(tmp_path / "a.tif")
    pixels, repairs = loaded(tmp_path / "a.tif")
    assert (pixels[..., 1] == RAMP).all() and not repairs


def stored(path: Path, pixels: np.ndarray, **options) -> Path:
    """A TIFF of any type of pixels."""
    tifffile.imwrite(path, pixels, **options)
    return path


def deep_colour(path: Path, ramp: np.ndarray) -> Path:
    """A PNG of 16 bits in colour, which Pillow does not write; ramp: one channel."""
    path.write_bytes(fuzz_prepare.sixteen(np.repeat(ramp[..., None], 3, axis=2).astype(np.uint16)))
    return path


def test_sixteen_bits_in_colour_are_read_where_their_upper_eight_hold_the_picture(tmp_path):
    pixels, repairs = loaded(deep_colour(tmp_path / "a.png", RAMP.astype(int) * 257))
    assert (pixels == RAMP[..., None]).all() and repairs == ["16 bits in colour: the upper 8 taken"]
    with pytest.raises(BadRecord, match="16 bits in colour, whose upper 8 span less than half .*; convert it"):
        images.load(deep_colour(tmp_path / "b.png", RAMP.astype(int) * 16))


def test_sixteen_bits_a_pixel_are_not_sixteen_a_channel(tmp_path):
    """A BMP of 5, 6 and 5 bits, as old cameras write them."""
    values = np.tile(np.arange(8, 16, dtype="<u2") * 0x0821, (8, 1))
    masks = struct.pack("<3I", 0xF800, 0x07E0, 0x001F)
    head = struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 16, 3, 128, 0, 0, 0, 0)
    (tmp_path / "a.bmp").write_bytes(
        struct.pack("<2sIHHI", b"BM", 66 + 128, 0, 0, 66) + head + masks + values.tobytes()
    )
    pixels, repairs = loaded(tmp_path / "a.bmp")
    assert not repairs and len(np.unique(pixels[..., 0])) == 8


def test_a_transparent_level_of_many_is_not_taken_for_tissue(tmp_path):
    deep = Image.fromarray(np.where(RAMP > 100, 65535, RAMP.astype(np.uint16) * 16))
    deep.save(tmp_path / "a.png", transparency=65535)
    with pytest.raises(BadRecord, match="more than 8 bits, and transparent"):
        images.load(tmp_path / "a.png")


def test_a_decoder_without_memory_says_nothing_of_the_image(tmp_path):
    Image.fromarray(picture(0, 3000)).save(tmp_path / "a.jpg", progressive=True, quality=95)
    script = (
        "import resource, sys; from pathlib import Path; from safemed.data import images\n"
        "images.load(Path(sys.argv[2]))\n"
        "held = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (held + 48 * 2**20,) * 2)\n"
        "try: images.load(Path(sys.argv[1]))\n"
        "except MemoryError: print('stopped')\n"
    )
    Image.fromarray(picture(0)).save(tmp_path / "b.jpg")
    line = [sys.executable, "-c", script, tmp_path / "a.jpg", tmp_path / "b.jpg"]
    done = subprocess.run(line, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT / "scripts")})
    assert done.stdout == "stopped\n", done.stderr[-2000:]


@pytest.mark.parametrize("scale, told", [(1 / 255, "0..0.972549"), (1 / 100, "0..2.48"), (-7.5, "-1860..-0")])
def test_floats_keep_their_content(tmp_path, scale, told):
    pixels, repairs = loaded(stored(tmp_path / "a.tif", (RAMP * scale).astype(np.float32)))
    full = np.rint(RAMP / RAMP.max() * 255)
    assert (pixels[..., 0] == (full if scale > 0 else 255 - full)).all()
    assert repairs == [f"more than 8 bits: {told} scaled to 0..255"]


def test_floats_that_are_whole_levels_stay_as_they_are(tmp_path):
    pixels, repairs = loaded(stored(tmp_path / "a.tif", RAMP.astype(np.float32)))
    assert (pixels[..., 0] == RAMP).all() and not repairs


def test_a_white_zero_is_seen_as_white_in_sixteen_bits_as_in_eight(tmp_path):
    eight, untold = loaded(stored(tmp_path / "a.tif", RAMP, photometric="miniswhite"))
    deep, told = loaded(stored(tmp_path / "b.tif", RAMP.astype(np.uint16) * 16, photometric="miniswhite"))
    assert (eight[..., 0] == 255 - RAMP).all() and not untold
    assert deep[0, 0, 0] == 255 and deep[0, -1, 0] == 0 and told[0] == "inverted: its 0 is white"


def test_of_several_pages_or_frames_the_first_is_taken_and_told(tmp_path):
    pages = stored(tmp_path / "a.tif", np.stack([picture(i) for i in range(5)]), photometric="rgb")
    pixels, repairs = loaded(pages)
    assert (pixels == picture(0)).all() and repairs == ["5 frames or pages, the first taken"]
    frames = [Image.fromarray(picture(i)) for i in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert loaded(tmp_path / "a.gif")[1] == ["3 frames or pages, the first taken"]


def test_a_program_in_the_place_of_an_image_is_not_run(tmp_path, monkeypatch):
    """Pillow hands PostScript to Ghostscript."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    with pytest.raises(BadRecord, match="cannot identify"):
        images.load(tmp_path / "a.png")
    assert not (tmp_path / "ran").exists()


def test_what_is_no_file_is_refused_and_waited_for_by_nobody(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("a.png", "folder.png"):
        with pytest.raises(BadRecord, match="no file, but a folder or a device"):
            images.load(tmp_path / name)
    with pytest.raises(BadRecord, match="too long"):
        images.load(tmp_path / ("x" * 300))


def test_a_failing_disk_says_nothing_of_the_image():
    with pytest.raises(OSError, match="Input/output error"):
        images.load(Path("/proc/self/mem"))  # a file whose first byte cannot be read


def test_transparency_is_laid_over_black(tmp_path):
    rgba = np.dstack([picture(0), np.full((16, 16), 255, np.uint8)])
    rgba[:8, :, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "a.png")
    pixels, repairs = loaded(tmp_path / "a.png")
    assert not pixels[:8].any() and (pixels[8:] == picture(0)[8:]).all() and "transparency" in repairs[0]


@pytest.mark.parametrize("orientation", [0, 1, 9])
def test_an_orientation_that_turns_nothing_is_no_repair(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture(0)).save(tmp_path / "a.png", exif=exif)
    pixels, repairs = loaded(tmp_path / "a.png")
    assert (pixels == picture(0)).all() and not repairs


def test_an_orientation_in_exif_is_followed(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.fromarray(RAMP).save(tmp_path / "a.png", exif=exif)
    pixels, repairs = loaded(tmp_path / "a.png")
    assert (pixels[..., 0] == np.rot90(RAMP, -1)).all() and "EXIF" in repairs[0]


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
@pytest.mark.parametrize("keep", [0, 20, 0.5])
def test_truncated_and_empty_files_are_refused(tmp_path, suffix, keep):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(picture(0, 64)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep) if keep < 1 else keep])
    with pytest.raises(BadRecord, match="image") as error:
        images.load(path)
    assert str(tmp_path) not in str(error.value)  # the reasons of equal failures are equal


def test_missing_files_and_bombs_are_refused(tmp_path, monkeypatch):
    with pytest.raises(BadRecord, match="no such file or directory"):
        images.load(tmp_path / "gone.png")
    Image.fromarray(picture(0, 64)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(BadRecord, match="bomb"):
        images.load(tmp_path / "a.png")


def smooth(seed: int, side: int = 128) -> Image.Image:
    """A random picture with large forms."""
    return Image.fromarray(picture(seed, 8)).resize((side, side), Image.Resampling.BICUBIC)


def bits(first: Image.Image, second: Image.Image) -> int:
    """In how many bits the difference hashes differ."""
    return (int(images.dhash(first), 16) ^ int(images.dhash(second), 16)).bit_count()


@pytest.mark.parametrize("seed", range(5))
def test_the_difference_hash_tells_copies_from_other_pictures(seed, tmp_path):
    original = smooth(seed)
    original.resize((100, 100)).save(tmp_path / "copy.jpg", quality=60)
    with Image.open(tmp_path / "copy.jpg") as copy:
        assert bits(original, copy) <= 16
    assert bits(original, smooth(seed + 100)) > 64


def test_equal_pixels_have_equal_keys_and_one_pixel_makes_another():
    pixels = picture(0)
    key = images.image_key(Image.fromarray(pixels))
    assert key == images.image_key(Image.fromarray(pixels.copy()))
    pixels[3, 3, 0] ^= 1
    assert key != images.image_key(Image.fromarray(pixels))
