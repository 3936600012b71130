"""Decoding and resizing: modes, limits and sizes, with values computed by hand."""

import contextlib
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from roadseg_serve.errors import (
    DamagedImageError,
    EmptyFileError,
    ImageTooLargeError,
    NotAnImageError,
    UploadTooLargeError,
)
from roadseg_serve.messages import Placement
from roadseg_serve.models.manifest import SizeRule
from roadseg_serve.stages.preprocess import FORMATS, MAX_JPEG_SCANS, START_OF_SCAN, Limits, decode, resize_and_pad

LIMITS = Limits(max_upload_bytes=1_000_000, max_pixels=10_000)
RULE = SizeRule(short_side_px=64, max_long_side_px=160, multiple_px=16)


def file_of(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header claims a size; its picture data are missing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def palette_picture() -> Image.Image:
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putdata([0, 1])
    return picture


@pytest.mark.parametrize(
    ("picture", "kind", "pixel"),
    [
        (Image.new("1", (3, 2), 1), "PNG", (255, 255, 255)),
        (Image.new("L", (3, 2), 77), "PNG", (77, 77, 77)),
        (Image.new("LA", (3, 2), (200, 255)), "PNG", (200, 200, 200)),
        (Image.new("LA", (3, 2), (200, 0)), "PNG", (0, 0, 0)),  # transparency lies on black
        (palette_picture(), "PNG", (10, 20, 30)),
        (palette_picture(), "GIF", (10, 20, 30)),
        (Image.new("RGB", (3, 2), (1, 2, 3)), "PNG", (1, 2, 3)),
        (Image.new("RGB", (3, 2), (1, 2, 3)), "BMP", (1, 2, 3)),
        (Image.new("RGB", (3, 2), (1, 2, 3)), "PPM", (1, 2, 3)),
        (Image.new("RGB", (3, 2), (1, 2, 3)), "QOI", (1, 2, 3)),
        (Image.new("RGBA", (3, 2), (1, 2, 3, 255)), "PNG", (1, 2, 3)),
        (Image.new("RGBA", (3, 2), (100, 200, 50, 51)), "PNG", (20, 40, 10)),  # 51 / 255 is a fifth
        (Image.new("CMYK", (3, 2), (0, 255, 255, 0)), "TIFF", (255, 0, 0)),
        (Image.new("YCbCr", (3, 2), (90, 128, 128)), "TIFF", (90, 90, 90)),
        # 16-bit grey: 257 * 100 is 100; 1000 / 257 is 3.89; dark pictures stay dark.
        (Image.new("I;16", (3, 2), 25700), "PNG", (100, 100, 100)),
        (Image.new("I;16", (3, 2), 65535), "PNG", (255, 255, 255)),
        (Image.new("I;16", (3, 2), 1000), "TIFF", (4, 4, 4)),
        (Image.new("I", (3, 2), 25700), "TIFF", (100, 100, 100)),
        (Image.new("I", (3, 2), -5), "TIFF", (0, 0, 0)),
        (Image.new("F", (3, 2), 99.5), "TIFF", (100, 100, 100)),
        (Image.new("F", (3, 2), float("nan")), "TIFF", (0, 0, 0)),
        (Image.new("F", (3, 2), 1e9), "TIFF", (255, 255, 255)),
    ],
)
def test_any_mode_becomes_rgb(picture: Image.Image, kind: str, pixel: tuple[int, int, int]) -> None:
    image_HWC = decode(file_of(picture, kind), LIMITS)
    assert image_HWC.dtype == np.uint8
    assert image_HWC.shape == (picture.height, picture.width, 3)
    assert tuple(image_HWC[0, 0]) == pixel


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "JPEG2000"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_compressed_formats(kind: str, mode: str) -> None:
    picture = Image.new("RGB", (48, 32), (200, 30, 60)).convert(mode)
    difference = decode(file_of(picture, kind), LIMITS) - np.asarray(picture.convert("RGB"), int)
    assert np.abs(difference).max() <= 6  # lossy


def test_cmyk_jpeg() -> None:
    data = file_of(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)
    assert np.abs(decode(data, LIMITS)[8, 8] - np.array([255, 0, 0])).max() <= 4


@pytest.mark.parametrize(
    ("lab", "rgb"),
    [
        # 8-bit CIE L*a*b* under D50: L* is scaled by 255 / 100, a* and b* are shifted by 128.
        ((0, 128, 128), (0, 0, 0)),
        ((255, 128, 128), (255, 255, 255)),
        ((138, 209, 198), (255, 0, 0)),  # the red of sRGB is L* 54.29, a* 80.81, b* 69.89
    ],
)
def test_lab(lab: tuple[int, int, int], rgb: tuple[int, int, int]) -> None:
    image_HWC = decode(file_of(Image.new("LAB", (3, 2), lab), "TIFF"), LIMITS)
    assert np.abs(image_HWC[0, 0] - np.array(rgb)).max() <= 6  # L*a*b* in 8 bit is coarse


def test_a_transparent_palette_colour_becomes_black() -> None:
    image_HWC = decode(file_of(palette_picture(), "PNG", transparency=1), LIMITS)
    assert image_HWC.tolist() == [[[10, 20, 30], [0, 0, 0]]]


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("#0000ff", "#ff0000")]
    data = file_of(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert tuple(decode(data, LIMITS)[0, 0]) == (0, 0, 255)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied_once(kind: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # turn clockwise to see it upright
    stored = Image.new("RGB", (32, 16), (0, 0, 255))
    stored.paste((255, 0, 0), (0, 0, 16, 16))  # red on the left, so on top when upright
    options = {"quality": 100} if kind in ("JPEG", "WEBP") else {}
    image_HWC = decode(file_of(stored, kind, exif=exif, **options), LIMITS)
    assert image_HWC.shape == (32, 16, 3)
    assert image_HWC[2, 8, 0] > 200
    assert image_HWC[30, 8, 0] < 55


def test_limits_are_checked_before_decoding() -> None:
    assert decode(file_of(Image.new("L", (100, 100))), LIMITS).shape == (100, 100, 3)  # exactly the limit
    with pytest.raises(ImageTooLargeError):
        decode(file_of(Image.new("L", (101, 100))), LIMITS)
    # Only a header: had it been decoded, it would be damaged.
    with pytest.raises(ImageTooLargeError):
        decode(png_of_size(10_000, 10_000), LIMITS)
    with pytest.raises(ImageTooLargeError):
        decode(png_of_size(65_501, 1), Limits(max_upload_bytes=1000, max_pixels=100_000))
    with pytest.raises(ImageTooLargeError):
        decode(png_of_size(100_000, 100_000), LIMITS)  # beyond Pillow's own alarm
    with pytest.raises(UploadTooLargeError):
        decode(b"x" * 1_000_001, LIMITS)


@pytest.mark.parametrize(
    "data",
    [
        b"just text",
        b"\x00" * 100,
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.4\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        b"\xff\xd8",
    ],
)
def test_files_that_are_not_pictures(data: bytes) -> None:
    with pytest.raises(NotAnImageError, match="PNG"):
        decode(data, LIMITS)


def test_empty_file() -> None:
    with pytest.raises(EmptyFileError):
        decode(b"", LIMITS)


def test_a_picture_with_broken_exif_is_used_as_stored() -> None:
    data = file_of(Image.new("RGB", (3, 2), (1, 2, 3)), "PNG", exif=b"Exif\0\0neither II nor MM")
    assert decode(data, LIMITS).tolist() == [[[1, 2, 3]] * 3] * 2


def test_a_jpeg_of_hundreds_of_scans_is_refused_undecoded() -> None:
    whole = file_of(Image.new("L", (100, 100), 200), "JPEG", progressive=True)
    assert 2 <= whole.count(START_OF_SCAN) <= MAX_JPEG_SCANS
    last = whole[whole.rindex(START_OF_SCAN) : -2]  # up to the marker that ends the picture
    most = MAX_JPEG_SCANS - whole.count(START_OF_SCAN)
    assert decode(whole[:-2] + most * last + whole[-2:], LIMITS)[50, 50].tolist() == [200, 200, 200]
    with pytest.raises(DamagedImageError, match="scans"):
        decode(whole[:-2] + (most + 1) * last + whole[-2:], LIMITS)


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind not in ("AVIF", "WEBP", "QOI")])
def test_a_truncated_picture_is_damaged(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = file_of(Image.fromarray(noise), kind)
    with pytest.raises(DamagedImageError, match="Save it again"):
        decode(data[: len(data) // 2], LIMITS)


@pytest.mark.parametrize("kind", FORMATS)
def test_corrupt_bytes_decode_or_are_refused(kind: str) -> None:
    random = np.random.default_rng(1)
    whole = np.frombuffer(file_of(Image.new("RGB", (40, 30), "#405060"), kind), np.uint8)
    for _ in range(60):
        spoilt = whole.copy()
        places = random.integers(0, len(whole), 3)
        spoilt[places] = random.integers(0, 256, 3)
        with contextlib.suppress(DamagedImageError, NotAnImageError, ImageTooLargeError):
            decode(spoilt.tobytes(), LIMITS)


@pytest.mark.parametrize(
    ("frame", "scaled", "padded"),
    [
        ((64, 64), (64, 64), (64, 64)),
        ((128, 256), (64, 128), (64, 128)),
        ((256, 128), (128, 64), (128, 64)),
        ((375, 1242), (48, 160), (48, 160)),  # the long side rules: 375 * 160 / 1242 is 48.3
        ((480, 360), (85, 64), (96, 64)),  # 480 * 64 / 360 is 85.3
        ((2, 5), (64, 160), (64, 160)),
        ((1, 1), (64, 64), (64, 64)),
        ((1, 8000), (1, 160), (16, 160)),  # never less than a pixel
        ((200, 500), (64, 160), (64, 160)),
        ((64, 65), (64, 65), (64, 80)),
        ((128, 131), (64, 66), (64, 80)),  # 131 / 2 is 65.5, and halves go up
    ],
)
def test_sizes_of_resized_and_padded_pictures(
    frame: tuple[int, int], scaled: tuple[int, int], padded: tuple[int, int]
) -> None:
    fitted = resize_and_pad(np.zeros((*frame, 3), np.uint8), RULE)
    assert fitted.input_HWC.shape == (*padded, 3)
    assert fitted.placement == Placement(*frame, *scaled)


def test_padding_keeps_pixels_and_repeats_the_edge() -> None:
    image_HWC = np.random.default_rng(2).integers(0, 256, (64, 70, 3), np.uint8)
    input_HWC = resize_and_pad(image_HWC, RULE).input_HWC
    assert np.array_equal(input_HWC[:, :70], image_HWC)
    assert (input_HWC[:, 70:] == image_HWC[:, 69:70]).all()


def test_shrinking_averages() -> None:
    # Columns alternate 0 and 200: without antialiasing the result would be one or the other.
    image_HWC = np.zeros((256, 256, 3), np.uint8)
    image_HWC[:, ::2] = 200
    inner = resize_and_pad(image_HWC, RULE).input_HWC[:, 4:-4]
    assert (np.abs(inner.astype(int) - 100) <= 1).all()
