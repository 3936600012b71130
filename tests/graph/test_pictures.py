"""Any picture through the graph, in every format, checked pixel by pixel."""

import base64
import io
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from roadseg_serve.messages import MEDIA_TYPES, Answer, AnswerOptions, Format
from tests.graph.conftest import Segment

Road = npt.NDArray[np.bool_]
Colour = tuple[int, int, int]

# At this size the red model's input is the picture itself: nothing is resized or padded.
SIZE = (96, 64)
BOX = (3, 5, 40, 21)  # left, top, right, bottom in pixels; right and bottom excluded
ALIGNED_BOX = (16, 0, 48, 32)  # on the blocks of lossy formats
WHITE, BLACK, RED, CYAN = (255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 255, 255)
OVERLAY_RGB = (26, 200, 110)


@dataclass(frozen=True)
class Case:
    """A file, and what is seen in it: a box of one colour, which is road, on another."""

    data: bytes
    road_rgb: Colour = WHITE
    other_rgb: Colour = BLACK
    box: tuple[int, int, int, int] = BOX

    @property
    def road(self) -> Road:
        left, top, right, bottom = self.box
        road_HW = np.zeros((SIZE[1], SIZE[0]), bool)
        road_HW[top:bottom, left:right] = True
        return road_HW

    @property
    def picture(self) -> npt.NDArray[np.uint8]:
        return np.where(self.road[..., None], self.road_rgb, self.other_rgb).astype(np.uint8)


def file_of(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def boxed(mode: str, road: Any, other: Any, box: tuple[int, int, int, int] = BOX) -> Image.Image:
    picture = Image.new(mode, SIZE, other)
    picture.paste(road, box)
    return picture


def palette(**options: Any) -> bytes:
    picture = boxed("P", 1, 0)
    picture.putpalette([*WHITE, *WHITE] if options else [*BLACK, *RED])
    return file_of(picture, "PNG", **options)


def deep_rgb_png() -> bytes:
    """16 bits of each colour, which Pillow reads but does not write: 0x80FF is 128 of 255, 0x7FFF is 127."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    red_HW = np.where(Case(b"").road, 0x80FF, 0x7FFF)
    pixels_HWC = np.stack([red_HW, np.zeros_like(red_HW), np.zeros_like(red_HW)], axis=-1).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in pixels_HWC)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *SIZE, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def ycck_jpeg() -> bytes:
    """Photoshop's kind of CMYK: luma and chroma of the inks, black inverted, and an Adobe marker that says so."""
    inks = boxed("RGB", (0, 255, 255), (255, 0, 0), ALIGNED_BOX).convert("YCbCr")  # cyan, magenta and yellow as RGB
    # Pillow writes 255 minus each channel of CMYK: what is inverted here is stored as it is.
    channels = [channel.point(lambda value: 255 - value) for channel in inks.split()]
    data = bytearray(file_of(Image.merge("CMYK", [*channels, Image.new("L", SIZE, 0)]), "JPEG", quality=100))
    transform = data.index(b"Adobe") + 11
    assert data[transform] == 0  # CMYK
    data[transform] = 2  # YCCK
    return bytes(data)


def animation(kind: str, **options: Any) -> bytes:
    others = [boxed("RGB", BLACK, WHITE), Image.new("RGB", SIZE, WHITE)]
    return file_of(boxed("RGB", WHITE, BLACK), kind, save_all=True, append_images=others, **options)


LOSSY = {"quality": 100}
CASES: dict[str, Callable[[], Case]] = {
    "1-bit PNG": lambda: Case(file_of(boxed("1", 1, 0), "PNG")),
    "1-bit TIFF of a fax": lambda: Case(file_of(boxed("1", 1, 0), "TIFF", compression="group4")),
    "grey PNG": lambda: Case(file_of(boxed("L", 200, 20), "PNG"), (200, 200, 200), (20, 20, 20)),
    "grey JPEG": lambda: Case(file_of(boxed("L", 255, 0, ALIGNED_BOX), "JPEG", **LOSSY), box=ALIGNED_BOX),
    # What is transparent is black, whatever colour is written under it.
    "grey PNG with alpha": lambda: Case(file_of(boxed("LA", (255, 255), (255, 0)), "PNG")),
    "RGBA PNG": lambda: Case(file_of(boxed("RGBA", (255, 0, 0, 255), (255, 0, 0, 0)), "PNG"), RED),
    "RGBA WEBP": lambda: Case(
        file_of(boxed("RGBA", (255, 0, 0, 255), (255, 0, 0, 0)), "WEBP", lossless=True, exact=True), RED
    ),
    "palette PNG": lambda: Case(palette(), RED),
    "palette PNG with a transparent colour": lambda: Case(palette(transparency=0)),
    "palette PNG with alpha": lambda: Case(palette(transparency=b"\x00\xff")),
    "16-bit grey PNG": lambda: Case(file_of(boxed("I;16", 257 * 200, 257 * 20), "PNG"), (200, 200, 200), (20, 20, 20)),
    "16-bit RGB PNG": lambda: Case(deep_rgb_png(), (128, 0, 0), (127, 0, 0)),
    "CMYK TIFF": lambda: Case(file_of(boxed("CMYK", (0, 255, 255, 0), (255, 0, 0, 0)), "TIFF"), RED, CYAN),
    "CMYK JPEG": lambda: Case(
        file_of(boxed("CMYK", (0, 255, 255, 0), (255, 0, 0, 0), ALIGNED_BOX), "JPEG", **LOSSY), RED, CYAN, ALIGNED_BOX
    ),
    "YCCK JPEG": lambda: Case(ycck_jpeg(), RED, CYAN, ALIGNED_BOX),
    "L*a*b* TIFF": lambda: Case(file_of(boxed("LAB", (138, 209, 198), (0, 128, 128)), "TIFF"), RED),
    "RGB PNG": lambda: Case(file_of(boxed("RGB", RED, CYAN), "PNG"), RED, CYAN),
    "RGB TIFF": lambda: Case(file_of(boxed("RGB", RED, CYAN), "TIFF", compression="tiff_lzw"), RED, CYAN),
    "RGB BMP": lambda: Case(file_of(boxed("RGB", RED, CYAN), "BMP"), RED, CYAN),
    "RGB PPM": lambda: Case(file_of(boxed("RGB", RED, CYAN), "PPM"), RED, CYAN),
    "RGB QOI": lambda: Case(file_of(boxed("RGB", RED, CYAN), "QOI"), RED, CYAN),
    "RGB JPEG 2000": lambda: Case(file_of(boxed("RGB", RED, CYAN), "JPEG2000"), RED, CYAN),
    "RGB WEBP": lambda: Case(file_of(boxed("RGB", RED, CYAN), "WEBP", lossless=True), RED, CYAN),
    "RGB AVIF": lambda: Case(
        file_of(boxed("RGB", WHITE, BLACK, ALIGNED_BOX), "AVIF", subsampling="4:4:4", **LOSSY), box=ALIGNED_BOX
    ),
    "progressive JPEG": lambda: Case(
        file_of(boxed("RGB", WHITE, BLACK, ALIGNED_BOX), "JPEG", progressive=True, **LOSSY), box=ALIGNED_BOX
    ),
    "two pictures in one (MPO)": lambda: Case(
        file_of(
            boxed("RGB", WHITE, BLACK, ALIGNED_BOX),
            "MPO",
            save_all=True,
            append_images=[boxed("RGB", BLACK, WHITE)],
            **LOSSY,
        ),
        box=ALIGNED_BOX,
    ),
    "animated GIF": lambda: Case(animation("GIF")),
    "animated WEBP": lambda: Case(animation("WEBP", lossless=True)),
    "animated PNG": lambda: Case(animation("PNG")),
}


def opened(answer: Answer) -> Image.Image:
    picture = Image.open(io.BytesIO(answer.body))
    assert Image.MIME[str(picture.format)] == answer.media_type
    return picture


def mask_of(picture: Image.Image) -> Road:
    """Road in a mask that lost nothing."""
    mask_HW: npt.NDArray[np.uint8] = np.asarray(picture)
    assert (picture.format, picture.mode) == ("PNG", "L")
    assert set(np.unique(mask_HW)) <= {0, 255}
    road_HW: Road = mask_HW == 255
    return road_HW


def unrolled(rle: dict[str, Any]) -> Road:
    """COCO's run lengths back to a mask, by what its own documentation says."""
    values = [number % 2 == 1 for number, count in enumerate(rle["counts"]) for _ in range(count)]
    height, width = rle["size"]
    columns_WH: Road = np.array(values, bool).reshape(width, height)
    return columns_WH.T


def luma(image_HWC: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Of each pixel in [0, 255], as JPEG has it (ITU-R BT.601): the part that it keeps at full resolution."""
    luma_HW: npt.NDArray[np.float64] = image_HWC @ np.array([0.299, 0.587, 0.114])
    return luma_HW


def coloured(overlay: Image.Image, picture_HWC: npt.NDArray[np.uint8]) -> Road:
    """Where an overlay is nearer to the coloured picture than to the picture itself."""
    assert (overlay.format, overlay.mode) == ("JPEG", "RGB")
    tinted_HWC = (125.0 * picture_HWC + 130.0 * np.array(OVERLAY_RGB)) / 255
    luma_HW = luma(np.asarray(overlay))
    nearer_HW: Road = np.abs(luma_HW - luma(tinted_HWC)) < np.abs(luma_HW - luma(picture_HWC))
    return nearer_HW


def roads(segment: Segment, data: bytes, picture_HWC: npt.NDArray[np.uint8]) -> dict[str, Road]:
    """The road as each format tells it."""
    answers = {form: segment(data, AnswerOptions(form)) for form in Format}
    for form, answer in answers.items():
        assert answer.media_type == MEDIA_TYPES[form]
    document = json.loads(answers[Format.JSON].body)
    png = Image.open(io.BytesIO(base64.b64decode(document["mask"]["png_base64"])))
    jpeg = opened(answers[Format.JPEG])
    assert (jpeg.format, jpeg.mode) == ("JPEG", "L")
    probability = opened(answers[Format.PROBABILITY])
    assert (probability.format, probability.mode) == ("PNG", "L")
    found = {
        "jpeg": np.asarray(jpeg) >= 128,
        "png": mask_of(opened(answers[Format.PNG])),
        "probability": np.asarray(probability) >= 128,
        "overlay": coloured(opened(answers[Format.OVERLAY]), picture_HWC),
        "json: png": mask_of(png),
        "json: rle": unrolled(document["mask"]["rle"]),
    }
    height, width = picture_HWC.shape[:2]
    assert (document["width"], document["height"]) == (width, height)
    shares = {document["road_share"], *(answer.road_share for answer in answers.values())}
    assert shares == {np.count_nonzero(found["png"]) / (width * height)}
    return found


@pytest.mark.parametrize("name", CASES)
def test_any_picture_in_every_format(segment: Segment, name: str) -> None:
    case = CASES[name]()
    for form, road_HW in roads(segment, case.data, case.picture).items():
        assert road_HW.shape == (SIZE[1], SIZE[0]), form
        assert np.array_equal(road_HW, case.road), form


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (13, 7), (333, 217), (1242, 375), (8000, 200)])
def test_all_formats_agree_at_any_size(segment: Segment, size: tuple[int, int]) -> None:
    width, height = size
    y, x = np.mgrid[:height, :width]
    picture_HWC = np.zeros((height, width, 3), np.uint8)
    picture_HWC[..., 0] = np.where((x * 3 // width + y * 2 // height) % 2 == 0, 250, 5)  # six fields in turn
    found = roads(segment, file_of(Image.fromarray(picture_HWC), "PNG"), picture_HWC)
    assert found["png"].shape == (height, width)
    assert found["png"][0, 0]
    for form, road_HW in found.items():
        assert np.array_equal(road_HW, found["png"]), form


@pytest.mark.parametrize(("threshold", "least_red"), [(0.0, 0), (0.25, 64), (0.5, 128), (0.8, 204), (1.0, 255)])
def test_the_threshold_of_the_options(segment: Segment, threshold: float, least_red: int) -> None:
    red_HW = np.arange(160 * 64).reshape(64, 160) % 256
    picture_HWC = np.stack([red_HW, 255 - red_HW, red_HW], axis=-1).astype(np.uint8)
    answer = segment(file_of(Image.fromarray(picture_HWC), "PNG"), AnswerOptions(Format.PNG, threshold))
    assert np.array_equal(mask_of(opened(answer)), red_HW >= least_red)


def test_the_probability_is_the_red(segment: Segment) -> None:
    picture_HWC = np.random.default_rng(5).integers(0, 256, (64, 96, 3), np.uint8)
    answer = segment(file_of(Image.fromarray(picture_HWC), "PNG"), AnswerOptions(Format.PROBABILITY))
    assert np.array_equal(np.asarray(opened(answer)), picture_HWC[..., 0])
