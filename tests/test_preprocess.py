"""From files in every odd mode to upright RGB pixels; what is damaged, and what only looks so."""

import io
import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, TiffImagePlugin

from src.preprocess import (
    BadImageError,
    Preprocessing,
    decode,
    load_pixels,
    open_rgb,
    resize,
)

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def noise(height: int = 40, width: int = 56, seed: int = 0) -> np.ndarray:
    """Return smooth noise, uint8 [H, W, 3]: real enough for JPEG, different everywhere."""
    small = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def jpeg_bytes(**options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(noise(seed=3)).save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


def first_pixel(path: Path) -> tuple[int, ...]:
    image = open_rgb(path)
    assert image.mode == "RGB"
    return image.getpixel((0, 0))


# Formats and modes


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp", "ppm", "jp2"])
def test_lossless_files_give_their_pixels(tmp_path, suffix):
    pixels = noise()
    options = {"webp": {"lossless": True}, "jp2": {"irreversible": False}}.get(suffix, {})
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", **options)
    assert np.array_equal(np.asarray(open_rgb(tmp_path / f"a.{suffix}")), pixels)


def test_the_content_counts_and_not_the_suffix(tmp_path):
    Image.fromarray(noise()).save(tmp_path / "a.jpg", "PNG")
    assert decode(tmp_path / "a.jpg").format == "PNG"
    assert np.array_equal(np.asarray(open_rgb(tmp_path / "a.jpg")), noise())


def test_a_jpeg_is_decoded_in_full_and_never_drafted(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg_bytes())
    whole = Image.open(io.BytesIO(jpeg_bytes()))
    small = resize(whole, 8, "stretch")
    assert np.array_equal(load_pixels(tmp_path / "a.jpg", 8, "stretch"), np.asarray(small))


def test_of_a_gif_the_first_frame(tmp_path):
    frames = [Image.new("RGB", (4, 4), color) for color in (RED, BLUE)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert first_pixel(tmp_path / "a.gif") == RED


def test_grey_and_black_and_white(tmp_path):
    Image.new("L", (4, 4), 90).save(tmp_path / "grey.png")
    Image.new("1", (4, 4), 1).save(tmp_path / "one_bit.png")
    assert first_pixel(tmp_path / "grey.png") == (90, 90, 90)
    assert first_pixel(tmp_path / "one_bit.png") == WHITE


def test_cmyk(tmp_path):
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "a.tiff")
    assert first_pixel(tmp_path / "a.tiff") == RED


def test_lab(tmp_path):
    Image.new("LAB", (4, 4), (255, 128, 128)).save(tmp_path / "a.tiff")
    assert min(first_pixel(tmp_path / "a.tiff")) >= 250  # the lightest grey there is


@pytest.mark.parametrize(
    ("mode", "color"),
    [("RGBA", (255, 0, 0, 51)), ("LA", (0, 51)), ("RGBA", (9, 9, 9, 0)), ("RGBA", (*BLUE, 255))],
)
def test_transparency_is_laid_on_white(tmp_path, mode, color):
    Image.new(mode, (4, 4), color).save(tmp_path / "a.png")
    alpha = color[-1] / 255
    seen = color[:3] if mode == "RGBA" else color[:1] * 3
    expected = [round(value * alpha + 255 * (1 - alpha)) for value in seen]
    assert np.abs(np.subtract(first_pixel(tmp_path / "a.png"), expected)).max() <= 1


@pytest.mark.parametrize("transparency", [0, b"\x00"])
def test_a_palettes_transparent_colour_is_laid_on_white(tmp_path, transparency):
    image = Image.new("P", (4, 4), 0)
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=transparency)
    picture = open_rgb(tmp_path / "a.png")
    assert picture.getpixel((0, 0)) == WHITE
    assert picture.getpixel((1, 0)) == BLUE


def test_a_plain_palette(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([*RED, *BLUE])
    image.save(tmp_path / "a.png")
    assert first_pixel(tmp_path / "a.png") == BLUE


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path, suffix):
    values = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    path = tmp_path / f"a.{suffix}"
    if suffix == "pgm":
        path.write_bytes(b"P5 4 1 65535\n" + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(path)
    assert np.asarray(open_rgb(path))[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),  # taken as 0..1; 127.5 rounds to even
        ([0.0, 51.0, 200.0], [0, 51, 200]),  # taken as 0..255
        ([-1.0, 0.0, 3.0], [0, 64, 255]),  # no scale: stretched; 63.75 rounds up
        ([float("nan"), 0.2, float("inf")], [0, 51, 0]),
        ([float("nan")] * 3, [0, 0, 0]),
        ([-7.0, -7.0, -7.0], [0, 0, 0]),
    ],
)
def test_float_tiff(tmp_path, values, expected):
    Image.fromarray(np.array([values], dtype=np.float32)).save(tmp_path / "a.tiff")
    assert np.asarray(open_rgb(tmp_path / "a.tiff"))[0, :, 1].tolist() == expected


def test_32_bit_grey_beyond_16_bits_is_stretched(tmp_path):
    Image.fromarray(np.array([[-100, 0, 300]], dtype=np.int32)).save(tmp_path / "a.tiff")
    assert np.asarray(open_rgb(tmp_path / "a.tiff"))[0, :, 2].tolist() == [0, 64, 255]


# Orientation


@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_obeyed(tmp_path, suffix, orientation):
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :24] = RED
    upright[16:, 24:] = BLUE
    # How a camera held that way stores the upright picture: the inverse, worked out by hand.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),  # the top is on the left: turned anticlockwise
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, quality=95)
    picture = np.asarray(open_rgb(path)).astype(int)
    assert picture.shape == upright.shape
    assert np.abs(picture - upright).mean() < 3


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Truncated File Read")
@pytest.mark.parametrize("rest", [b"no TIFF header", b"MM\0*\0\0\0\x08\x03\x84\x01\x12\0\x03"])
def test_a_damaged_exif_block_is_no_damage(tmp_path, rest):
    block = b"Exif\0\0" + rest
    (tmp_path / "a.jpg").write_bytes(jpeg_bytes(exif=block))
    expected = Image.open(io.BytesIO(jpeg_bytes()))
    assert np.array_equal(np.asarray(open_rgb(tmp_path / "a.jpg")), np.asarray(expected))


def test_an_exif_block_that_pillow_cannot_parse_is_no_damage(tmp_path):
    Image.fromarray(noise()).save(tmp_path / "a.png", exif=b"Exif\0\0no TIFF header")
    with Image.open(tmp_path / "a.png") as image, pytest.raises(SyntaxError, match="not a TIFF"):
        image.getexif()
    assert np.array_equal(np.asarray(open_rgb(tmp_path / "a.png")), noise())


# Damage


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_end_marker_is_whole(tmp_path, progressive):
    data = jpeg_bytes(progressive=progressive)
    assert data.endswith(b"\xff\xd9")
    (tmp_path / "a.jpg").write_bytes(data[:-2])
    expected = Image.open(io.BytesIO(data))
    assert np.array_equal(np.asarray(open_rgb(tmp_path / "a.jpg")), np.asarray(expected))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.5, 0.8, 0.95, 0.99])
def test_a_truncated_jpeg_is_damaged(tmp_path, progressive, share):
    data = jpeg_bytes(progressive=progressive)
    (tmp_path / "a.jpg").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(BadImageError, match="truncated: pixels are missing") as caught:
        open_rgb(tmp_path / "a.jpg")
    assert caught.value.reason == "truncated: pixels are missing at the end"
    assert caught.value.path == tmp_path / "a.jpg"


@pytest.mark.parametrize(
    ("suffix", "match"),
    [
        ("png", "truncated"),
        ("gif", "truncated"),
        ("bmp", "truncated"),
        ("tiff", "truncated"),
        ("webp", "broken: "),  # libwebp does not say why
    ],
)
def test_truncated_files_are_damaged(tmp_path, suffix, match):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise()).save(path)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(BadImageError, match=match):
        open_rgb(path)


def test_what_is_no_picture(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not a picture at all")
    (tmp_path / "noise.jpg").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "header.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    with pytest.raises(BadImageError, match=r"empty\.jpg: empty file"):
        open_rgb(tmp_path / "empty.jpg")
    with pytest.raises(BadImageError, match="not a picture"):
        open_rgb(tmp_path / "text.jpg")
    with pytest.raises(BadImageError, match="not a picture"):
        open_rgb(tmp_path / "noise.jpg")
    with pytest.raises(BadImageError, match="broken header"):
        open_rgb(tmp_path / "header.png")


def test_postscript_is_never_handed_to_ghostscript(tmp_path):
    (tmp_path / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n")
    with pytest.raises(BadImageError, match="not a picture"):
        open_rgb(tmp_path / "a.eps")


def test_too_many_pixels_whatever_pillows_global_limit_says(tmp_path, monkeypatch):
    Image.fromarray(noise(40, 50)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr("src.preprocess.MAX_PIXELS", 2000)
    assert open_rgb(tmp_path / "a.png").size == (50, 40)
    monkeypatch.setattr("src.preprocess.MAX_PIXELS", 1999)
    with pytest.raises(BadImageError, match="too many pixels"):
        open_rgb(tmp_path / "a.png")


def test_the_limit_that_is_told_is_the_one_that_holds(tmp_path, monkeypatch):
    Image.fromarray(noise(40, 50)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # Pillow refuses it before we do
    with pytest.raises(BadImageError, match=r"at most 100 are read"):
        open_rgb(tmp_path / "a.png", max_pixels=100)


def test_pillows_own_limit_is_reported_alike(tmp_path, monkeypatch):
    Image.fromarray(noise(40, 50)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(BadImageError, match="too many pixels"):
        open_rgb(tmp_path / "a.png")


def test_a_missing_file_stays_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg"):
        open_rgb(tmp_path / "nowhere.jpg")


@pytest.mark.parametrize("fault", [ValueError("odd"), KeyError("odd"), struct.error("odd")])
def test_whatever_pillow_throws_is_a_bad_image(tmp_path, monkeypatch, fault):
    Image.fromarray(noise()).save(tmp_path / "a.png")

    def fail(self):
        raise fault

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(BadImageError, match=r"broken: .*odd"):
        open_rgb(tmp_path / "a.png")


def test_a_mode_that_cannot_be_converted_is_a_bad_image(tmp_path, monkeypatch):
    Image.fromarray(noise()).convert("L").save(tmp_path / "a.png")

    def fail(self, mode):
        raise ValueError("conversion not supported")

    monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(BadImageError, match="conversion not supported"):
        open_rgb(tmp_path / "a.png")


def test_lack_of_memory_is_not_blamed_on_the_file(tmp_path, monkeypatch):
    Image.fromarray(noise()).save(tmp_path / "a.png")

    def fail(self):
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(MemoryError):
        open_rgb(tmp_path / "a.png")


def test_the_error_comes_back_whole_from_another_process():
    error = pickle.loads(pickle.dumps(BadImageError("a/b.jpg", "empty file")))  # noqa: S301
    assert (error.path, error.reason) == (Path("a/b.jpg"), "empty file")


# Resize


def test_resize_is_antialiased_bilinear():
    stripes = Image.fromarray(np.tile([[0], [255]], (8, 16)).astype(np.uint8)).convert("RGB")
    stretched = np.asarray(resize(stripes, 4, "stretch"))
    assert stretched.shape == (4, 4, 3)
    assert np.abs(stretched.astype(int) - 127.5).max() < 40  # without a filter: 0 or 255


def test_stretch_takes_the_whole_picture_and_crop_its_centre():
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, :10], pixels[:, 20:] = RED, BLUE
    image = Image.fromarray(pixels)
    stretched, cropped = (np.asarray(resize(image, 10, rule)) for rule in ("stretch", "crop"))
    assert stretched[5, 0].tolist() == list(RED)
    assert stretched[5, -1].tolist() == list(BLUE)
    assert (cropped == 0).all()


def test_crop_keeps_fractions_of_a_pixel():
    # 3 wide, 2 high: the centre square begins half a pixel in, so the columns are mixed evenly.
    row = np.array([[0, 100, 200]] * 2, np.uint8)
    image = Image.fromarray(row).convert("RGB")
    assert np.asarray(resize(image, 2, "crop"))[:, :, 0].tolist() == [[50, 150]] * 2


def test_cover_keeps_all_of_the_longer_side_up_to_four_times_the_shorter():
    row = np.zeros((10, 60, 3), np.uint8)
    row[:, 10:50] = RED  # the middle: four times as long as high
    assert np.asarray(resize(Image.fromarray(row[:, :25]), 20, "cover")).shape == (20, 50, 3)
    assert np.asarray(resize(Image.fromarray(row[:, :25]).transpose(4), 20, "cover")).shape[0] == 50
    long = np.asarray(resize(Image.fromarray(row), 10, "cover"))
    assert long.shape == (10, 40, 3)
    assert (long == RED).all()


def test_nearest_takes_one_pixel_and_mixes_none(tmp_path):
    """Of 4 x 4 black and white pixels, the one below the middle of each of the 2 x 2."""
    board = np.array([[0, 255, 0, 255], [255, 0, 255, 0]] * 2, np.uint8)
    Image.fromarray(np.stack([board] * 3, axis=2)).save(tmp_path / "a.png")
    for rule in ("stretch", "crop"):
        assert (load_pixels(tmp_path / "a.png", 2, rule, "nearest")[..., 0] == board[1, 1]).all()
        mixed = load_pixels(tmp_path / "a.png", 2, rule).astype(int)
        assert (abs(mixed - 128) < 8).all()


def test_nearest_is_the_resize_of_keras(tmp_path):
    """Its load_img calls Pillow's resize with NEAREST on the whole picture."""
    picture = Image.fromarray(noise(61, 47))
    picture.save(tmp_path / "a.png")
    expected = np.asarray(picture.resize((30, 30), Image.Resampling.NEAREST))
    assert np.array_equal(load_pixels(tmp_path / "a.png", 30, "stretch", "nearest"), expected)


@pytest.mark.parametrize("rule", ["stretch", "crop"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 2)])
def test_a_picture_one_pixel_high_or_wide(tmp_path, shape, rule):
    Image.new("RGB", shape[::-1], BLUE).save(tmp_path / "a.png")
    pixels = load_pixels(tmp_path / "a.png", 7, rule)
    assert pixels.shape == (7, 7, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable and pixels.flags.c_contiguous
    assert (pixels == BLUE).all()


def test_the_right_size_is_left_untouched(tmp_path):
    Image.fromarray(noise(24, 24)).save(tmp_path / "a.png")
    for rule in ("stretch", "crop"):
        assert np.array_equal(load_pixels(tmp_path / "a.png", 24, rule), noise(24, 24))


# The record

RECORD = Preprocessing(
    image_size=64,
    resize="crop",
    classes=("bee", "wasp"),
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.2, 0.25),
)


def test_the_record_survives_json():
    plain = json.loads(json.dumps(RECORD.to_dict()))
    assert Preprocessing.from_dict(plain) == RECORD
    assert plain["classes"] == ["bee", "wasp"]
    assert plain["interpolation"] == "bilinear"


@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_a_record_with_other_fields_is_refused(change):
    plain = RECORD.to_dict()
    if change == "missing":
        del plain["mean"]
    else:
        plain["crop_pct"] = 0.9
    with pytest.raises(ValueError, match="a preprocessing record has the fields"):
        Preprocessing.from_dict(plain)


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("image_size", 0, "at least 1 pixel"),
        ("resize", "pad", "'stretch' or 'crop'"),
        ("interpolation", "cubic", "'cubic'; it must be 'bilinear' or 'nearest'"),
        ("mean", [0.5], "3 numbers each"),
        ("std", [0.2, 0.2], "3 numbers each"),
        ("std", [0.2, 0.2, 0.0], "above 0"),
    ],
)
def test_a_record_with_impossible_values_is_refused(field, value, match):
    with pytest.raises(ValueError, match=match):
        Preprocessing.from_dict(RECORD.to_dict() | {field: value})


def test_pillow_still_rotates_tiff_files_itself():
    # `to_upright_rgb` reads the orientation after decoding, when Pillow has dealt with TIFF's.
    assert "exif_transpose" in TiffImagePlugin.TiffImageFile.load_end.__code__.co_names
