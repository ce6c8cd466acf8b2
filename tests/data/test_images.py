"""Every kind of image file becomes 8-bit RGB by one stated way, and copies of a picture are told from others."""

import numpy as np
import pytest
from PIL import Image

from safemed.data import images
from safemed.data.records import BadRecord
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
    with pytest.raises(BadRecord, match="no such file"):
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
